"""Where a film cuts from one scene to another."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

# Side of the small frames in which cuts are looked for.
THUMBNAIL = 16
# A cut changes pixels by this share of white at least, and by so many times what the frames
# around it change by.
LEAST_CHANGE, TIMES_AROUND = 0.08, 3.0
AROUND = 3


def change(one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h w 3"]) -> float:
    """The mean difference of two small frames, uint8 [h, w, 3], as a share of white."""
    return float(np.abs(one.astype(np.float32) - other).mean() / 255)


def find_cuts(changes: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the frames that begin a new scene, without the first.

    A fast movement changes several frames in a row, a cut one.

    Args:
      changes: `change` of each frame but the first, from the frame before.
    """
    cuts = []
    for i, own in enumerate(changes):
        around = [*changes[max(0, i - AROUND) : i], *changes[i + 1 : i + 1 + AROUND]]
        if own > LEAST_CHANGE and own > TIMES_AROUND * max(around, default=0.0):
            cuts.append(i + 1)
    return tuple(cuts)


def runs_of(found: Sequence[bool], cuts: Sequence[int]) -> list[range]:
    """Frames without a gap and without a cut among them: ranges of their numbers.

    Args:
      found: whether each frame counts.
      cuts: as of `find_cuts`.
    """
    runs: list[range] = []
    begins = set(cuts)
    for i, known in enumerate(found):
        if not known:
            continue
        if runs and runs[-1].stop == i and i not in begins:
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    return runs
