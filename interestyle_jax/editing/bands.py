"""Rows of `w_plus` by resolution, and mixing of two latents on some of them (paper Fig. 9).

Row i is counted at the resolution 2^(2 + i // 2), as StyleGAN's papers do: coarse are 4 and 8
pixels, middle 16 and 32, fine the rest. (A ToRGB shares its row with the next upsampling layer.)
"""

import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.editing.edits import Edit
from interestyle_jax.errors import InputError

# Least and largest resolution of a band.
BANDS = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, math.inf)}
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def row_resolution(row: int) -> int:
    """The resolution at which a row of `w_plus` is counted."""
    return 2 ** (2 + row // 2)


def band_rows(bands: Sequence[str], length: int) -> tuple[int, ...]:
    """The rows of bands: at 1024 coarse 0-3, middle 4-7, fine 8-17; at 64 fine is 8-9.

    Args:
      bands: of `BANDS`, in any order.
      length: L, the rows of the generator's `w_plus`.

    Raises:
      InputError: unknown band, or one that the generator is too small for.
    """
    found: set[int] = set()
    for band in bands:
        if band not in BANDS:
            raise InputError(f"bands: {band!r}, expected some of {', '.join(BANDS)}")
        low, high = BANDS[band]
        rows = {row for row in range(length) if low <= row_resolution(row) <= high}
        if not rows:
            largest = row_resolution(length - 1)
            raise InputError(f"bands: {band} begins at {low} pixels, this generator has {largest}")
        found |= rows
    if not found:
        raise InputError(f"bands: none, expected some of {', '.join(BANDS)}")
    return tuple(sorted(found))


def choose_rows(
    rows: Sequence[int] | None, bands: Sequence[str] | None, length: int
) -> tuple[int, ...] | None:
    """Rows of a generator's `w_plus` from either; None where neither is given.

    Raises:
      InputError: both, or what `band_rows` raises.
    """
    if rows is not None and bands is not None:
        raise InputError("--rows, --bands: expected one of them")
    if bands is not None:
        return band_rows(bands, length)
    return None if rows is None else tuple(rows)


def parse_rows(text: str) -> tuple[int, ...]:
    """Rows as "0-7" or "0,1,4-6".

    Raises:
      InputError: anything else, or a range that ends before it begins.
    """
    rows: set[int] = set()
    for word in text.split(","):
        match = _RANGE.fullmatch(word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(f"rows: {text!r}, expected rows such as 0-7 or 0,1,4-6")
        rows |= set(range(first, last + 1))
    return tuple(sorted(rows))


def describe_rows(rows: Sequence[int]) -> str:
    """The inverse of `parse_rows`: "0-3,6" of 0, 1, 2, 3, 6."""
    words: list[list[int]] = []
    for row in sorted(rows):
        if words and words[-1][-1] == row - 1:
            words[-1] = [words[-1][0], row]
        else:
            words.append([row])
    return ",".join("-".join(map(str, word)) for word in words)


def mixing_edit(other: Float[jax.Array, "B L D"], *, name: str) -> Edit:
    """The edit (1 - t) w_plus + t other; strength t 0 leaves, 1 takes the other's [B, L, D]."""
    return Edit(jnp.asarray(other), _mix, "w_plus", name, default_range=(0.0, 1.0))


def _mix(other, w_plus, share):
    return (1 - share) * w_plus + share * other
