"""How much a film flickers: jitter of what should move evenly, and identity from frame to frame."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Of a run so many frames, evenly chosen, are compared with each other.
MOST_FRAMES = 150


def jitter(values: Float[np.ndarray, "n k"], runs: Sequence[range]) -> float | None:
    """Root mean square of second differences: how far frames lie from an even movement.

    A frame whose value [k] is off by independent noise of standard deviation s a number adds
    sqrt(6 k) s.

    Args:
      values: of each frame, [n, k].
      runs: frames without a gap or a cut among them.

    Returns:
      In the unit of the values, length of the vector of k; None without three frames in a row.
    """
    squares: list[np.ndarray] = []
    for run in runs:
        own = np.asarray(values[run.start : run.stop], np.float64)
        if len(own) > 2:
            squares.append((np.diff(own, 2, axis=0) ** 2).sum(1))
    return float(np.sqrt(np.concatenate(squares).mean())) if squares else None


def temporal_identity(
    source: Float[np.ndarray, "n D"],
    edited: Float[np.ndarray, "n D"],
    runs: Sequence[range],
) -> dict[str, float | None]:
    """How alike the frames of a film are among themselves, against how alike the source's are.

    Source: TL-ID and TG-ID of STIT (Tzaban et al. 2022, section 5): the ratio of the edited
    frames' cosine to the source frames', 1 where the edit adds no change of identity.

    Args:
      source: unit vectors of the source's frames, [n, D], NaN of frames without a face.
      edited: of the edited frames, [n, D].
      runs: frames without a gap or a cut among them.

    Returns:
      "local" of adjacent frames, "global" of all pairs of a run (of MOST_FRAMES of its frames);
      None where there is no pair.
    """
    known = np.isfinite(source).all(1) & np.isfinite(edited).all(1)
    near = [(i, i + 1) for run in runs for i in run if i + 1 in run]
    chosen = [run[:: -(-len(run) // MOST_FRAMES)] for run in runs]
    pairs = [pair for frames in chosen for pair in itertools.combinations(frames, 2)]
    return {
        "local": _ratio(source, edited, near, known),
        "global": _ratio(source, edited, pairs, known),
    }


def _ratio(source, edited, pairs, known) -> float | None:
    chosen = [(i, j) for i, j in pairs if known[i] and known[j]]
    if not chosen:
        return None
    i, j = np.array(chosen).T
    own, given = ((x[i] * x[j]).sum(1) for x in (edited, source))
    return float(np.mean(own / given))
