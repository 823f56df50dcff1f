"""What the parsers of commands and scripts share: options, and the types of their values."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interestyle_jax.jobs.job import RunOptions

# "--out=~/x" and "--masks-option=weights=~/x"; shells leave the "~" of these alone.
_HOME = re.compile(r"((?:--[\w.-]+=)?(?:[\w-]+=)?)(~.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations, in whose arguments "~" is the home folder."""

    def __init__(self, *, allow_abbrev: bool = False, **options):
        super().__init__(allow_abbrev=allow_abbrev, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, which all its ways to parse go through."""
        return super().parse_known_args(
            expand_home(sys.argv[1:] if args is None else args), namespace
        )


def expand_home(argv: Sequence[str]) -> list[str]:
    """Arguments with a value that begins with "~" or "~USER", which becomes the home folder."""
    found = [(argument, _HOME.fullmatch(argument)) for argument in argv]
    return [m[1] + os.path.expanduser(m[2]) if m else argument for argument, m in found]


def add_out_option(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """The folder that a command writes."""
    parser.add_argument(
        "--out", required=required, type=Path, metavar="DIR", help="folder of the results"
    )


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """What `invert` and `evaluate` say of how models run."""
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="iterations N (default 5; encoders that see the image alone run once)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks' maps"
    )


def add_job_options(
    parser: argparse._ActionsContainer,
    *,
    skipped: str = "of images that may be skipped (default 0.01; 0.5 where faces are looked for)",
) -> None:
    """What every image job takes; `skipped` explains --max-skipped."""
    parser.add_argument("--max-skipped", type=float, metavar="SHARE", help=skipped)
    parser.add_argument("--workers", type=natural, metavar="N", help="threads (default one a core)")
    add_shard_option(parser)


def run_options(args: argparse.Namespace) -> "RunOptions":
    """What the options of `add_job_options` say; raises InputError for a bad --shard."""
    from interestyle_jax.jobs.shard import find_shard

    return {
        "max_skipped": args.max_skipped,
        "workers": args.workers,
        "shard": find_shard(args.shard),
        "command": args.argv,
    }


def add_shard_option(parser: argparse._ActionsContainer) -> None:
    """Which part of an image job a process does."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do part I = 0 ... N-1 of N, one process each into one --out (default: all, or as "
        "SLURM, Open MPI, Kubernetes or a TPU pod say)",
    )


def add_landmark_options(parser: argparse._ActionsContainer) -> None:
    """What `align` and `invert --align` say of landmarks."""
    parser.add_argument(
        "--landmarks", choices=("litert", "dlib"), help="what finds eyes and mouth (default litert)"
    )
    parser.add_argument(
        "--dlib-file", metavar="FILE", help="dlib's shape_predictor_68_face_landmarks.dat"
    )


def add_row_options(parser: argparse._ActionsContainer, *, default: str) -> None:
    """Which rows of `w_plus` a command changes; `default` says it without these options."""
    parser.add_argument(
        "--rows", metavar="A-B,C", help=f"rows of w_plus that change (default {default})"
    )
    parser.add_argument(
        "--bands", type=words, metavar="BAND,...", help="instead: coarse, middle, fine"
    )


def words(text: str) -> tuple[str, ...]:
    """Words parted by commas, for argparse."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def signed_numbers(text: str) -> tuple[float, ...]:
    """Numbers parted by commas, for argparse."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers such as -3,0,3") from None


def numbers(text: str) -> tuple[float, ...]:
    """Numbers above 0 parted by commas, for argparse."""
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < 100 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers above 0 such as 1,0.5")
    return numbers


def count(text: str) -> int:
    """A whole number from 1, for argparse."""
    number = _whole(text)
    if number is None or number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 1")
    return number


def natural(text: str) -> int:
    """A whole number from 0, for argparse."""
    number = _whole(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 0")
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative, expected 0 or more")
    return number


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
