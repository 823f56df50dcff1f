"""The command line: `interestyle COMMAND`, a module of `commands` each."""

import argparse
import sys
from collections.abc import Sequence

from interestyle_jax import __version__
from interestyle_jax.commands import (
    align,
    convert,
    data,
    directions,
    edit,
    evaluate,
    export,
    invert,
    masks,
    mix,
    plan,
    serve,
    train,
)
from interestyle_jax.commands.options import Parser
from interestyle_jax.exit_status import run_command

COMMANDS = (
    *(train, invert, edit, mix, align, evaluate),
    *(data, masks, directions, convert, export, plan, serve),
)


class _Parser(Parser):
    """Reports wrong usage in one line on stderr, with status 2."""

    def error(self, message: str):
        self.exit(2, f"interestyle: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    0 on success; 2 on wrong usage or input, 1 where the machine failed or a loss was not finite
    (one line on stderr each); 130 on Ctrl-C. A training that SIGTERM stopped saved its state: 0,
    for the scheduler to restart.
    """
    argv = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        parser = build_parser()
        args, rest = parser.parse_known_args(argv)
        if rest and args.command not in ("train", "plan"):
            parser.error(f"unknown argument {rest[0]}")
        args.overrides, args.argv = rest, ["interestyle", *argv]
        return args.run(args)

    return run_command(work, program="interestyle")


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; imports nothing heavy."""
    parser = _Parser(
        prog="interestyle",
        description="IntereStyle GAN inversion in JAX: encode a region, ignore the rest.",
    )
    parser.add_argument("--version", action="version", version=f"interestyle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
