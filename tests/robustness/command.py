"""One command line in this process: what it printed, whether it ended, what it left on the disk."""

import contextlib
import dataclasses
import faulthandler
import hashlib
import io
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from interestyle_jax import cli
from tools.convert_weights import __main__ as converter


class Hang(BaseException):
    """The command took too long. No `except Exception` takes it for bad input."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did: its status (None: it raised), and the text of stdout and stderr."""

    status: int | None
    stdout: str
    stderr: str
    hung: bool = False


def run_command(argv: Sequence[str], folder: Path, *, seconds: float) -> Outcome:
    """Runs `interestyle ARGV` in `folder`, with its `tmp` for temporary files.

    Everything written to the two streams is caught, by native code too.
    """
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    hung, status = False, None
    with contextlib.chdir(folder), _temporary_files(temporary), _caught() as texts, _warnings():
        try:
            with _time_limit(seconds, folder.with_name(f"{folder.name}.stacks")):
                status = _main(list(argv))
        except SystemExit as done:
            status = done.code
        except Hang:
            hung = True
            traceback.print_exc()
        except BaseException:
            traceback.print_exc()
    return Outcome(status, *texts, hung)


def _main(argv: list[str]) -> int:
    # The converter of this checkout, also where the package is installed from another place.
    return converter.main(argv[1:]) if argv[0] == "convert" else cli.main(argv)


@contextlib.contextmanager
def _temporary_files(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _time_limit(seconds: float, stacks: Path) -> Iterator[None]:
    def stop(*_):
        raise Hang(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with stacks.open("w") as file:
        # Native code that never returns hears no signal: the process ends, and leaves its stacks.
        faulthandler.dump_traceback_later(4 * seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    stacks.unlink()


@contextlib.contextmanager
def _caught() -> Iterator[list[str]]:
    """The text of file descriptors 1 and 2, filled in at the end of the block."""
    texts: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    streams, kept = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = io.TextIOWrapper(open(os.dup(1), "wb"), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(
            open(os.dup(2), "wb"), encoding="utf-8", write_through=True, errors="backslashreplace"
        )
        try:
            yield texts
        finally:
            sys.stdout.close()
            sys.stderr.close()
            sys.stdout, sys.stderr = streams
            for fd, own in zip(kept, (1, 2), strict=True):
                os.dup2(fd, own)
                os.close(fd)
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Warnings as users see them, on stderr; tests make errors of them."""

    def show(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    with warnings.catch_warnings():
        warnings.resetwarnings()
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        warnings.showwarning = show
        yield


def tree(folder: Path) -> dict[str, str]:
    """{path: what lies there, by its content's digest} of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "directory"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "other"
    return found
