"""The command `interestyle serve`; `page.app` does the work."""

import argparse

from interestyle_jax.commands.options import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "serve",
        help="a page on this machine: invert, edit and mix images in the browser",
        description="Runs a page on 127.0.0.1 that inverts, edits and mixes uploaded images, and "
        "pastes them back. It needs the extra [serve].",
    )
    parser.add_argument(
        "--weights",
        default="avatar_interestyle",
        metavar="NAME_OR_DIR",
        help="default: avatar_interestyle",
    )
    parser.add_argument(
        "--direction",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="a slider each, at most 16 (default: those that ship, or the weights' strongest)",
    )
    parser.add_argument(
        "--masks",
        metavar="NAME",
        help="interest masks: avatars, selfie, segformer, detr, graphonomy or none (default: "
        "avatars for theirs, else selfie where LiteRT is installed)",
    )
    parser.add_argument(
        "--masks-weights", metavar="DIR", help="of the masks' network, where it needs them"
    )
    parser.add_argument("--clip", metavar="NAME_OR_DIR", help="for texts (default avatar_clip)")
    parser.add_argument(
        "--channels",
        metavar="NAME_OR_DIR",
        help="of `directions text` or `global`, for texts (default avatar_texts)",
    )
    parser.add_argument("--port", type=count, default=7860, help="default 7860")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command until it is stopped; returns 0. Raises InputError on bad input."""
    from interestyle_jax.page.app import serve

    serve(
        args.weights,
        directions=args.direction,
        masks=args.masks,
        masks_weights=args.masks_weights,
        clip=args.clip,
        channels=args.channels,
        port=args.port,
    )
    return 0
