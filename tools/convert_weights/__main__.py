"""The command: `python -m tools.convert_weights SOURCE [SOURCE ...] OUT`."""

import argparse
import sys
from collections.abc import Sequence

from interestyle_jax.errors import InputError
from interestyle_jax.weights import STORAGE_DTYPES
from tools.convert_weights import convert
from tools.convert_weights.families import FAMILIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, 2 for bad usage or input."""
    parser = argparse.ArgumentParser(prog="python -m tools.convert_weights", description=__doc__)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="checkpoint file or files")
    parser.add_argument("out", metavar="OUT", help="weight directory to write")
    parser.add_argument("--family", default="auto", help=f"auto, or {', '.join(FAMILIES)}")
    parser.add_argument("--part", metavar="NAME", help="keep only this part, e.g. generator")
    parser.add_argument("--dtype", default="float32", choices=STORAGE_DTYPES, help="storage type")
    parser.add_argument("--force", action="store_true", help="replace an existing OUT")
    options = parser.parse_args(arguments)
    try:
        report = convert(
            options.source,
            options.out,
            family=options.family,
            part=options.part,
            dtype=options.dtype,
            force=options.force,
        )
    except InputError as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    print(report)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
