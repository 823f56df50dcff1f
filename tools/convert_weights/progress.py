"""Progress bars on stderr, silent where that is no terminal."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bytes_bar(total: int, what: str) -> tqdm:
    """A bar that counts bytes."""
    # disable=None asks whether stderr is a terminal.
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False, disable=None)


def tracked(items: Iterable[T], what: str, *, total: int) -> Iterable[T]:
    """The items, one step of a bar each."""
    return tqdm(items, desc=what, total=total, leave=False, disable=None)
