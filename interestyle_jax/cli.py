"""The command line: `interestyle train | invert | align | evaluate | data | masks | convert`."""

import argparse
import sys
from collections.abc import Sequence

from interestyle_jax import __version__
from interestyle_jax.commands import align, convert, data, evaluate, invert, masks, train
from interestyle_jax.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line on stderr, with status 2."""

    def error(self, message: str):
        self.exit(2, f"interestyle: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    0 on success, 2 on wrong usage or input and 1 on a non-finite loss (one line on stderr each),
    130 on Ctrl-C. A training that SIGTERM stopped saved its state: 0, for the scheduler to restart.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    try:
        args, rest = parser.parse_known_args(argv)
        if rest and args.command != "train":
            parser.error(f"unknown argument {rest[0]}")
        args.overrides, args.argv = rest, ["interestyle", *argv]
        return args.run(args) or 0
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except FloatingPointError as error:
        return _fail(str(error), status=1)
    except KeyboardInterrupt:
        print("interestyle: stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; imports nothing heavy."""
    parser = _Parser(
        prog="interestyle",
        description="IntereStyle GAN inversion in JAX: encode a region, ignore the rest.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"interestyle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, invert, align, evaluate, data, masks, convert):
        command.add(commands)
    return parser


def _fail(message: str, status: int = 2) -> int:
    print(f"interestyle: error: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
