"""The command `interestyle data`: makes data sets that `train` and `evaluate` read."""

import argparse
import sys
from pathlib import Path

from interestyle_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands of `interestyle data` to `parser`."""
    commands = parser.add_subparsers(dest="source", required=True)
    world = commands.add_parser("avatars", help="draw the avatar world")
    world.add_argument("--out", type=Path, required=True, help="directory to write")
    world.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    world.add_argument("--train", type=int, default=2000, help="number of training samples")
    world.add_argument("--validation", type=int, default=200)
    world.add_argument("--test", type=int, default=200)
    world.add_argument("--seed", type=int, default=0)
    world.add_argument("--style", default="toon-head", help="toon-head, or personas (held out)")
    world.add_argument("--clean-only", action="store_true", help="only clean pictures and ids")
    world.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    world.add_argument("--force", action="store_true", help="replace an existing directory")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen sub-command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.data.avatar_builder import write_avatars

    out = write_avatars(
        args.out,
        sizes={"train": args.train, "validation": args.validation, "test": args.test},
        size=args.size,
        seed=args.seed,
        style=args.style,
        clean_only=args.clean_only,
        workers=args.workers,
        force=args.force,
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
