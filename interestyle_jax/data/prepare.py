"""The command `interestyle data`: makes data sets that `train` and `evaluate` read."""

import argparse
import sys
from pathlib import Path

from interestyle_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands of `interestyle data` to `parser`."""
    commands = parser.add_subparsers(dest="source", required=True, metavar="avatars|folder")
    world = commands.add_parser("avatars", help="draw the avatar world")
    world.add_argument("--train", type=int, default=2000, help="number of samples (default 2000)")
    world.add_argument("--validation", type=int, default=200, help="default 200")
    world.add_argument("--test", type=int, default=200, help="default 200")
    world.add_argument("--style", default="toon-head", help="toon-head, or personas (held out)")
    world.add_argument("--clean-only", action="store_true", help="only clean pictures and ids")
    folder = commands.add_parser("folder", help="take pictures and masks from directories")
    folder.add_argument("--images", type=Path, required=True, help="directory of pictures")
    folder.add_argument("--masks", type=Path, required=True, help="interest masks, same names")
    folder.add_argument("--face-masks", type=Path, help="face masks, same names (optional)")
    folder.add_argument("--validation", type=int, help="number of pictures (default 5 %%)")
    folder.add_argument("--test", type=int, help="number of pictures (default 5 %%)")
    for command in (world, folder):
        command.add_argument("--out", type=Path, required=True, help="directory to write")
        command.add_argument("--size", type=int, default=64, help="side in pixels (default 64)")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--workers", type=int, default=None, help="processes (default: one a core; 0: none)"
        )
        command.add_argument("--force", action="store_true", help="replace an existing data set")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen sub-command; returns 0. Raises InputError on bad input."""
    options = {
        "size": args.size, "seed": args.seed, "workers": args.workers, "force": args.force,
    }  # fmt: skip
    if args.seed < 0:
        raise InputError(f"--seed: {args.seed} is negative, expected 0 or more")
    if args.workers is not None and args.workers < 0:
        raise InputError(f"--workers: {args.workers} is negative, expected 0 or more")
    # Imported here: spawned workers import this module again, and TFDS takes a second.
    if args.source == "avatars":
        from interestyle_jax.data.avatar_builder import write_avatars

        out = write_avatars(
            args.out,
            sizes={"train": args.train, "validation": args.validation, "test": args.test},
            style=args.style,
            clean_only=args.clean_only,
            **options,
        )
    else:
        from interestyle_jax.data.folder_builder import write_folder

        out = write_folder(
            args.images,
            args.masks,
            args.out,
            face_masks=args.face_masks,
            validation=args.validation,
            test=args.test,
            **options,
        )
    print(f"wrote {out}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parses `argv` and runs it; returns the exit status (2 on bad input)."""
    parser = argparse.ArgumentParser(prog="interestyle data", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except InputError as error:
        print(f"interestyle data: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
