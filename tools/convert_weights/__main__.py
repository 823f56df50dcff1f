"""The command: `python -m tools.convert_weights SOURCE [SOURCE ...] OUT`.

With `--to=pytorch` SOURCE is a weight directory and OUT the file to write.
"""

import argparse
import sys
from collections.abc import Sequence

from interestyle_jax.errors import InputError
from interestyle_jax.weights import STORAGE_DTYPES
from tools.convert_weights import convert
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.to_pytorch import to_pytorch


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, 2 for bad usage or input."""
    parser = argparse.ArgumentParser(prog="python -m tools.convert_weights", description=__doc__)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="checkpoint file or files")
    parser.add_argument("out", metavar="OUT", help="weight directory to write")
    parser.add_argument(
        "--to",
        choices=("jax", "pytorch"),
        default="jax",
        help="pytorch: SOURCE is a weight directory, OUT the official file to write",
    )
    parser.add_argument("--family", default="auto", help=f"auto, or {', '.join(FAMILIES)}")
    parser.add_argument("--part", metavar="NAME", help="keep only this part, e.g. generator")
    parser.add_argument("--dtype", default="float32", choices=STORAGE_DTYPES, help="storage type")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read OUT again, compare every tensor with SOURCE, run every network once",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing OUT")
    options = parser.parse_args(arguments)
    try:
        report = _back(options) if options.to == "pytorch" else _convert(options)
    except InputError as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    print(report)
    print(f"wrote {options.out}")
    return 0


def _convert(options: argparse.Namespace) -> str:
    return convert(
        options.source,
        options.out,
        family=options.family,
        part=options.part,
        dtype=options.dtype,
        force=options.force,
        check=options.verify,
    )


def _back(options: argparse.Namespace) -> str:
    if len(options.source) > 1:
        raise InputError(f"--to=pytorch: {len(options.source)} sources, expected one directory")
    if options.part is not None:
        raise InputError("--part: not with --to=pytorch, whose layout has all parts of a family")
    if options.verify:
        raise InputError("--verify: not with --to=pytorch")
    if options.dtype != "float32":
        raise InputError(f"--dtype: {options.dtype} with --to=pytorch, which writes float32")
    return to_pytorch(options.source[0], options.out, family=options.family, force=options.force)


if __name__ == "__main__":
    sys.exit(main())
