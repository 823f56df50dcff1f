"""The command `interestyle convert`; the package `convert_weights` does the work."""

import argparse
import functools

from interestyle_jax.errors import InputError

# As `interestyle_jax.weights.STORAGE_DTYPES`, whose module takes seconds to import.
DTYPES = ("float32", "float16", "bfloat16")
# What some families ask for because their files do not say it.
SOURCE_OPTIONS = ("activation", "levels")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "convert",
        help="convert checkpoints of other projects, and back",
        description="Converts checkpoints of other projects to a weight directory, and with "
        "--to=pytorch a weight directory to the official file.",
    )
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="checkpoint file or files")
    parser.add_argument("out", metavar="OUT", help="weight directory to write")
    parser.add_argument(
        "--to",
        choices=("jax", "pytorch"),
        default="jax",
        help="pytorch: SOURCE is a weight directory, OUT the official file to write",
    )
    parser.add_argument(
        "--family",
        default="auto",
        metavar="NAME",
        help="what SOURCE is (default auto: recognised by its keys); a wrong NAME lists all",
    )
    parser.add_argument("--part", metavar="NAME", help="keep only this part, e.g. generator")
    parser.add_argument(
        "--activation",
        metavar="NAME",
        help="of a CLIP whose file does not say: quick_gelu (OpenAI's networks) or gelu",
    )
    parser.add_argument(
        "--levels",
        metavar="NAMES",
        help="those that a StyleCLIP mapper has, such as coarse,medium (default: all three)",
    )
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="storage type")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read OUT again, compare every tensor with SOURCE, run every network once",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing OUT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax import convert_weights
    from interestyle_jax.convert_weights.to_pytorch import to_pytorch

    if args.to == "pytorch":
        _check_way_back(args)
        work = functools.partial(to_pytorch, args.source[0], args.out)
    else:
        options = {"part": args.part, "dtype": args.dtype, "check": args.verify}
        options["options"] = {name: getattr(args, name) for name in SOURCE_OPTIONS}
        work = functools.partial(convert_weights.convert, args.source, args.out, **options)
    print(work(family=args.family, force=args.force))
    print(f"wrote {args.out}")
    return 0


def _check_way_back(args: argparse.Namespace) -> None:
    if len(args.source) > 1:
        raise InputError(f"--to=pytorch: {len(args.source)} sources, expected one directory")
    if args.part is not None:
        raise InputError("--part: not with --to=pytorch, whose layout has all parts of a family")
    if args.verify:
        raise InputError("--verify: not with --to=pytorch")
    for name in SOURCE_OPTIONS:
        if getattr(args, name) is not None:
            raise InputError(f"--{name}: not with --to=pytorch, the weights say it")
    if args.dtype != "float32":
        raise InputError(f"--dtype: {args.dtype} with --to=pytorch, which writes float32")
