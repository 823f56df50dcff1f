"""What the parsers of commands and scripts share: options, and the types of their values."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# "--out=~/x" and "--masks-option=weights=~/x"; shells leave the "~" of these alone.
_HOME = re.compile(r"((?:--[\w.-]+=)?(?:[\w-]+=)?)(~.*)", re.DOTALL)


# What a namespace holds besides options.
_NO_OPTIONS = ("command", "run", "argv", "overrides")


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


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by their destinations: the parameters that they give."""
    return {k: v for k, v in vars(args).items() if v is not None and k not in _NO_OPTIONS}


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
