"""Values that belong to frames, smoothed over time within their scene."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from interestyle_jax.photos.quads import square_quad
from interestyle_jax.video.scenes import runs_of

# Standard deviations in frames of a quad's centre, and of its size and tilt.
# Source: STIT (Tzaban et al. 2022), its options center_sigma and xy_sigma.
CENTRE_SIGMA, AXIS_SIGMA = 1.0, 3.0
# Frames farther away than so many standard deviations do not count.
REACH = 4.0
# From one frame to the next a face moves by less than this share of its quad's side, and its side
# changes by a smaller factor; else it is another face.
FARTHEST, MOST_ZOOM = 0.5, 1.5


def frame_seconds(seconds: Float[np.ndarray, " n"]) -> float:
    """How long a frame is shown: the median of the times [n] between frames; 1 of one frame."""
    return float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0


def smoothing_weights(
    seconds: Float[np.ndarray, " n"], run: range, i: int, sigma: float
) -> tuple[range, Float[np.ndarray, " m"]]:
    """Frames that a smoothed value of frame i is made of, and their weights [m], of the sum 1.

    A line is laid through the values, which count less the farther away they are (Gaussian): what
    moves evenly stays as it is, also at the ends of a scene and at a variable frame rate.

    Args:
      seconds: when each frame is shown, [n].
      run: frames without a gap or a cut among them, i is one.
      i: the frame.
      sigma: in seconds, 0 leaves the value.
    """
    if sigma <= 0 or len(run) < 2:
        return range(i, i + 1), np.ones(1)
    first, stop = run.start, run.stop
    near = np.abs(seconds[first:stop] - seconds[i]) <= REACH * sigma
    inside = np.flatnonzero(near) + first
    window = range(int(inside[0]), int(inside[-1]) + 1)
    delta = (seconds[window.start : window.stop] - seconds[i]) / sigma
    weights = np.exp(-0.5 * delta**2)
    s0, s1, s2 = (float((weights * delta**k).sum()) for k in range(3))
    spread = s0 * s2 - s1 * s1
    if spread <= 1e-12 * s0 * s0:
        return window, weights / s0
    return window, weights * (s2 - s1 * delta) / spread


def smooth(
    values: Float[np.ndarray, "n k"],
    seconds: Float[np.ndarray, " n"],
    runs: Sequence[range],
    sigma: float,
) -> Float[np.ndarray, "n k"]:
    """Values [n, k] smoothed within runs of frames, see `smoothing_weights`."""
    result = np.array(values, np.float64)
    for run in runs:
        for i in run:
            window, weights = smoothing_weights(seconds, run, i, sigma)
            result[i] = weights @ values[window.start : window.stop]
    return result


def axes_of(quads: Float[np.ndarray, "n 4 2"]) -> Float[np.ndarray, "n 4"]:
    """Centre x, y and half axis x, y (to the right) of quads [n, 4, 2]: [n, 4]."""
    quads = np.asarray(quads, np.float64)
    right = (quads[:, 2] + quads[:, 3] - quads[:, 0] - quads[:, 1]) / 4
    return np.concatenate([quads.mean(1), right], axis=1)


def choose_quads(
    candidates: Sequence[Float[np.ndarray, "m 4 2"]],
    seconds: Float[np.ndarray, " n"],
    cuts: Sequence[int],
    *,
    max_gap: float = 0.5,
) -> Float[np.ndarray, "n 4 2"]:
    """The quads of one face among those found in each frame: [n, 4, 2], NaN where it is not.

    A scene begins with a frame's first candidate; then it is the one nearest to the last chosen.
    Where that is another face by its place or size, it counts as not found, for `max_gap`.

    Args:
      candidates: of each frame, [m, 4, 2] with m from 0, the best first.
      seconds: when each frame is shown, [n].
      cuts: frames that begin a new scene.
      max_gap: seconds after which a face that is not found is given up for another one.
    """
    chosen, last, begins = np.full((len(candidates), 4, 2), np.nan), None, set(cuts)
    for i, found in enumerate(candidates):
        if i in begins or (last is not None and seconds[i] - seconds[last] > max_gap):
            last = None
        if not len(found):
            continue
        best = 0
        if last is not None:
            axes, own = axes_of(found), axes_of(chosen[last : last + 1])[0]
            best = int(np.argmin(np.hypot(*(axes[:, :2] - own[:2]).T)))
            if _is_other(own, axes[best]):
                continue
        chosen[i], last = found[best], i
    return chosen


def follow_quads(
    quads: Float[np.ndarray, "n 4 2"],
    seconds: Float[np.ndarray, " n"],
    cuts: Sequence[int],
    *,
    strength: float = 1.0,
    max_gap: float = 0.5,
) -> tuple[Float[np.ndarray, "n 4 2"], tuple[int, ...]]:
    """The quads of a face that is followed over time: smoothed, short gaps interpolated.

    Neither crosses a cut, nor a jump from one face to another.

    Args:
      quads: [n, 4, 2], NaN where no face was found.
      seconds: when each frame is shown, [n].
      cuts: frames that begin a new scene.
      strength: factor on CENTRE_SIGMA and AXIS_SIGMA, which count frames; 0 leaves quads as found.
      max_gap: seconds; longer gaps stay NaN.

    Returns:
      quads [n, 4, 2], and the cuts with the jumps.
    """
    axes = axes_of(quads)
    found = np.isfinite(axes).all(1)
    cuts = tuple(sorted({*cuts, *_jumps(axes, found)}))
    axes, found = _bridged(axes, found, seconds, cuts, max_gap)
    runs, frame = runs_of(found.tolist(), cuts), frame_seconds(seconds)
    smoothed = np.concatenate(
        [
            smooth(axes[:, :2], seconds, runs, strength * CENTRE_SIGMA * frame),
            smooth(axes[:, 2:], seconds, runs, strength * AXIS_SIGMA * frame),
        ],
        axis=1,
    )
    result = np.full((len(axes), 4, 2), np.nan)
    for i in np.flatnonzero(found):
        result[i] = square_quad(smoothed[i, :2], smoothed[i, 2:])
    return result, cuts


def _is_other(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the faces of two frames, one after the other, are not the same."""
    sides = 2 * np.hypot(*np.stack([one, other])[:, 2:].T)
    moved = np.hypot(*(other[:2] - one[:2]))
    return bool(moved > FARTHEST * max(sides) or max(sides) > MOST_ZOOM * min(sides))


def _jumps(axes: np.ndarray, found: Bool[np.ndarray, " n"]) -> list[int]:
    """Frames at which the face found is another one than in the frame before."""
    pairs = np.flatnonzero(found[1:] & found[:-1]) + 1
    return [i for i in pairs.tolist() if _is_other(axes[i - 1], axes[i])]


def _bridged(
    axes: np.ndarray,
    found: np.ndarray,
    seconds: np.ndarray,
    cuts: Sequence[int],
    max_gap: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Axes with short gaps between finds of one scene filled in, and what is known then."""
    axes, filled = axes.copy(), found.copy()
    known = np.flatnonzero(found)
    for before, after in zip(known[:-1], known[1:], strict=True):
        if after == before + 1 or seconds[after] - seconds[before] > max_gap:
            continue
        sides = 2 * np.hypot(*axes[[before, after], 2:].T)
        far = np.hypot(*(axes[after, :2] - axes[before, :2])) > 2 * FARTHEST * max(sides)
        if far or any(before < cut <= after for cut in cuts):
            continue
        gap = slice(before + 1, after)
        for k in range(axes.shape[1]):
            axes[gap, k] = np.interp(
                seconds[gap], seconds[[before, after]], axes[[before, after], k]
            )
        filled[gap] = True
    return axes, filled
