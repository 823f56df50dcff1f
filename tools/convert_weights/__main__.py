"""`python -m tools.convert_weights` is the command `interestyle convert`."""

import sys
from collections.abc import Sequence

from interestyle_jax import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, as `cli.main`."""
    return cli.main(["convert", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
