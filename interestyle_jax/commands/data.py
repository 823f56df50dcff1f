"""The command `interestyle data`; `jobs.photo_sets` and `data.avatar_builder` do the work."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interestyle_jax.commands.options import add_out_option, given_options, natural, numbers, words
from interestyle_jax.errors import InputError

_AVATAR_SIZE = 64
# Options of providers that are no plain text.
_OPTION_TYPES: dict[str, Callable[[str], Any]] = {
    "threshold": float, "classes": words, "face_classes": words, "scales": numbers,
}  # fmt: skip


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`.

    Images are the command itself; `avatars` is a sub-command of it.
    """
    from interestyle_jax.data.layouts import DEALINGS, LAYOUTS, SPLITS
    from interestyle_jax.interest.providers import PROVIDERS

    parser = commands.add_parser(
        "data",
        help="prepare a data set",
        description="Makes the data sets that train and evaluate read (docs/data.md).",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--images", type=Path, metavar="DIR", help="images")
    parser.add_argument(
        "--masks",
        metavar="DIR|PROVIDER|none",
        help=f"interest masks of the same names, or who makes them: {', '.join(PROVIDERS)}",
    )
    parser.add_argument("--face-masks", type=Path, metavar="DIR", help="face masks (optional)")
    parser.add_argument(
        "--masks-option",
        action="append",
        default=[],
        type=_mask_option,
        metavar="NAME=VALUE",
        help="option of the provider, as `interestyle masks` has them (repeatable)",
    )
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="AFHQ's, e.g. wild")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="CelebA-HQ's list")
    parser.add_argument(
        "--splits", choices=DEALINGS, help="default: dealt for folders, all FFHQ to train"
    )
    parser.add_argument("--validation", type=int, metavar="N", help="images (dealt: 5 %%)")
    parser.add_argument("--test", type=int, metavar="N", help="images (dealt: 5 %%)")
    parser.add_argument("--only", choices=SPLITS, help="write this split alone")
    parser.add_argument(
        "--validation-images",
        type=Path,
        metavar="DIR",
        help="other images for validation (of CelebA-HQ its test split)",
    )
    parser.add_argument("--validation-masks", metavar="DIR|PROVIDER", help="their masks")
    parser.add_argument("--validation-face-masks", type=Path, metavar="DIR")
    parser.add_argument(
        "--encoding", choices=("jpeg", "png"), default="jpeg", help="jpeg: quality 95 (default)"
    )
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="of images that may be skipped as unusable (default 0.01)",
    )
    parser.add_argument(
        "--verify", type=Path, metavar="DIR", help="compare a data set with its manifest instead"
    )
    _add_common(parser, "side in pixels (default 256)")
    # Not required here: --verify goes without.
    add_out_option(parser, required=False)
    commands = parser.add_subparsers(dest="source", metavar="avatars")
    world = commands.add_parser("avatars", help="draw the avatar world")
    world.add_argument("--train", type=int, default=2000, help="number of samples (default 2000)")
    world.add_argument("--validation", type=int, default=200, help="default 200")
    world.add_argument("--test", type=int, default=200, help="default 200")
    world.add_argument("--style", default="toon-head", help="toon-head, or personas (held out)")
    world.add_argument("--clean-only", action="store_true", help="only clean images and ids")
    add_out_option(world)
    _add_common(world, f"side in pixels (default {_AVATAR_SIZE})")


def _add_common(parser: argparse.ArgumentParser, size_help: str) -> None:
    parser.add_argument("--size", type=int, metavar="N", help=size_help)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument(
        "--workers", type=natural, metavar="N", help="processes (default: one a core; 0: none)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing data set")


def run(args: argparse.Namespace) -> int:
    """Runs `interestyle data`; returns 0. Raises InputError on bad input."""
    if args.source == "avatars":
        out = _avatars(args)
    elif args.verify is not None:
        from interestyle_jax.data.manifest import verify

        files = verify(args.verify)["files"]
        print(f"{args.verify}: all {len(files)} files are as in its manifest")
        return 0
    else:
        missing = [name for name in ("images", "masks", "out") if getattr(args, name) is None]
        if missing:
            named = ", ".join(f"--{name}" for name in missing)
            raise InputError(f"data: {named} required (or the sub-command avatars)")
        out = _photos(args)
    print(f"wrote {out}")
    return 0


def _avatars(args: argparse.Namespace) -> Path:
    # Imported here: TFDS takes a second.
    from interestyle_jax.data.avatar_builder import write_avatars

    return write_avatars(
        args.out,
        sizes={"train": args.train, "validation": args.validation, "test": args.test},
        size=_AVATAR_SIZE if args.size is None else args.size,
        seed=args.seed,
        style=args.style,
        clean_only=args.clean_only,
        workers=args.workers,
        force=args.force,
    )


def _photos(args: argparse.Namespace) -> Path:
    from interestyle_jax.jobs.photo_sets import write_photo_set

    arguments = given_options(args)
    return write_photo_set(mask_options=dict(arguments.pop("masks_option")), **arguments)


def _mask_option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, for argparse."""
    name, found, value = text.partition("=")
    name = name.replace("-", "_")
    if not found or not value:
        raise argparse.ArgumentTypeError(f"'{text}', expected NAME=VALUE")
    try:
        return name, _OPTION_TYPES.get(name, str)(value)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"'{text}', expected numbers") from error
