"""Hidden files and folders of work that is not finished, and what a killed process left of its own.

Each holds the system's lock while its process lives, so that the next one can tell a leftover from
the work of another. Where a file system has no such locks, nothing is removed.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ATTEMPTS = 5
MARK = ".interestyle-"
# Hidden, with the mark, and an end as `tempfile` draws it.
NAME = re.compile(r"(\..+)?" + re.escape(MARK) + r"[a-z0-9_]{8}", re.DOTALL)


@contextlib.contextmanager
def unfinished_folder(parent: Path, *, name: str = "") -> Iterator[Path]:
    """A new hidden folder in `parent`, deleted at the end if it is still there.

    Args:
      parent: an existing folder; what killed processes left there is removed first.
      name: what the work will be called, for people who look.
    """
    remove_leftovers(parent)
    path, lock = _made(parent, name, is_folder=True)
    try:
        path.chmod(0o755)
        yield path
    except BaseException:
        # Threads of a writer that failed (TensorStore's) make files for a moment more.
        for _ in range(ATTEMPTS):
            shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.1)
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def unfinished_file(parent: Path, *, name: str = "") -> Iterator[Path]:
    """A new hidden empty file in `parent`, as `unfinished_folder`."""
    remove_leftovers(parent)
    path, lock = _made(parent, name, is_folder=False)
    try:
        path.chmod(0o644)
        yield path
    finally:
        with contextlib.suppress(OSError):
            # By another name it is finished.
            path.unlink()
        os.close(lock)


def remove_leftovers(parent: Path) -> None:
    """Deletes unfinished files and folders in `parent` whose process is gone."""
    for path in sorted(parent.iterdir()):
        if not NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                if _locked(lock):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(lock)


def _made(parent: Path, name: str, *, is_folder: bool) -> tuple[Path, int]:
    """The path and its open, locked file."""
    prefix = f".{name}{MARK}" if name else MARK
    while True:
        if is_folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            lock = os.open(path, os.O_RDONLY)
        else:
            lock, text = tempfile.mkstemp(prefix=prefix, dir=parent)
            path = Path(text)
        _locked(lock)
        # Between the making and the lock another process may have taken it for a leftover.
        if path.exists():
            return path, lock
        os.close(lock)


def _locked(lock: int) -> bool:
    """Takes the lock; whether it could be had."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
