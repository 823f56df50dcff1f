"""One process at a time, of those that share a folder."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is in such a block, by a lock on a file that is made here.

    The file stays: another process may wait for this very one.
    """
    with path.open("ab") as file:
        # Some disks know no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
