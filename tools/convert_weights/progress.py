"""Progress bars on stderr, silent where that is no terminal."""

import contextlib
import glob
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
# Seconds between two looks at what has been written.
PERIOD = 0.5


def bytes_bar(total: int, what: str) -> tqdm:
    """A bar that counts bytes."""
    # disable=None asks whether stderr is a terminal.
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False, disable=None)


def tracked(items: Iterable[T], what: str, *, total: int) -> Iterable[T]:
    """The items, one step of a bar each."""
    return tqdm(items, desc=what, total=total, leave=False, disable=None)


@contextlib.contextmanager
def directory_bar(directory: Path, total: int) -> Iterator[None]:
    """A bar of the bytes that lie in the hidden directory beside `directory`, until it has moved.

    Orbax writes a tree in one call, which says nothing on its way.
    """
    done = threading.Event()

    def watch(bar: tqdm) -> None:
        while not done.wait(PERIOD):
            files = directory.parent.glob(f".{glob.escape(directory.name)}.*/**/*")
            # Files come and go between the listing and the question for their size.
            with contextlib.suppress(OSError):
                bar.n = min(total, sum(path.stat().st_size for path in files))
                bar.refresh()

    with bytes_bar(total, f"write {directory.name}") as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        if not bar.disable:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.is_alive():
                thread.join()
