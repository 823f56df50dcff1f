"""The command `interestyle serve`; `page.app` does the work."""

import argparse

from interestyle_jax.commands.options import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "serve",
        help="a page on this machine: invert, edit and mix images in the browser",
        description="Runs a page on 127.0.0.1 that inverts uploaded images, edits and mixes them. "
        "It needs the extra [serve].",
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
    parser.add_argument("--port", type=count, default=7860, help="default 7860")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command until it is stopped; returns 0. Raises InputError on bad input."""
    from interestyle_jax.page.app import serve

    serve(args.weights, directions=args.direction, port=args.port)
    return 0
