"""How a command ends: 0, 2 for the user's errors, 1 for the machine's, each in one line."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable

from interestyle_jax.errors import InputError, MachineError, is_machine_failure, reason
from interestyle_jax.library_messages import without_library_messages
from interestyle_jax.one_line import one_line

# Set to 1 it shows the traceback behind the line, and what libraries log.
DEBUG = "INTERESTYLE_DEBUG"
STOPPED = 130


def status_of(error: BaseException) -> int | None:
    """The exit status that an error means, or None for a fault of the program itself.

    2: bad input, or a path that is not there or not allowed; launchers give up. 1: the machine
    failed (full disk, I/O error, no memory) or a loss was not finite; launchers try again.
    """
    if isinstance(error, FloatingPointError) or is_machine_failure(error):
        return 1
    return 2 if isinstance(error, InputError | OSError) else None


def report_error(error: BaseException, *, program: str, prefix: str = "") -> None:
    """Prints "`program`: error: `prefix` reason" on stderr, below the traceback if asked for."""
    if _debugging():
        traceback.print_exception(error)
    print(f"{program}: error: {prefix}{_line(error)}", file=sys.stderr, flush=True)


def run_command(work: Callable[[], int | None], *, program: str) -> int:
    """Runs `work`, a whole command with its parsing, and returns the exit status.

    What `work` returns, or 0; 2 or 1 with one line on stderr as `status_of` says; 130 on Ctrl-C.
    A fault of the program itself continues as it is, with its traceback.
    """
    _allow_any_character()
    quiet = contextlib.nullcontext() if _debugging() else without_library_messages()
    try:
        with quiet:
            status = _status(work)
        _flush_stdout()
        return status
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return STOPPED
    except Exception as error:
        failed = status_of(error)
        if failed is None:
            raise
        report_error(error, program=program)
        return failed


def _allow_any_character() -> None:
    """Lets stdout write names that its encoding lacks, as stderr does: by escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in (
        "strict",
        "surrogateescape",
    ):
        sys.stdout.reconfigure(errors="backslashreplace")


def _debugging() -> bool:
    return os.environ.get(DEBUG, "0") not in ("", "0")


def _status(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    # From argparse: --help, --version, bad usage.
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2


def _flush_stdout() -> None:
    """Here, because Python's own flush at the end reports a full disk in lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        raise


def _line(error: BaseException) -> str:
    text = reason(error)
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        text = f"{os.fsdecode(error.filename)}: {text}"
    elif isinstance(error, MemoryError) and str(error):
        text = f"out of memory: {text}"
    # Our own messages are whole; a library's may continue for pages.
    elif isinstance(error, InputError | MachineError | FloatingPointError):
        text = str(error)
    return one_line(text)
