"""How a film is smoothed over time, and how much that does."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.bands import band_rows, describe_rows
from interestyle_jax.errors import InputError
from interestyle_jax.jobs.film_frames import frame_name
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.video.metrics import jitter
from interestyle_jax.video.scenes import runs_of
from interestyle_jax.video.smoothing import axes_of


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """What is smoothed over time, within each scene; all zero: frame by frame.

    Attributes:
      quads: factor on the standard deviations of `video.smoothing`.
      latents: standard deviation in frames.
      shared_rows: rows of w_plus that the frames of a scene share; None: the fine ones
        (`editing.bands`).
      max_gap: seconds without a face that are bridged; in longer ones frames stay as they are.
    """

    quads: float = 1.0
    latents: float = 1.0
    shared_rows: tuple[int, ...] | None = ()
    max_gap: float = 0.5

    def check(self) -> None:
        """Raises InputError for a negative number or one that is none."""
        for name in ("quads", "latents", "max_gap"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                option = {"max_gap": "--max-gap"}.get(name, f"--smooth-{name}")
                raise InputError(f"{option}: {value}, expected 0 or more")

    def rows(self, length: int) -> tuple[int, ...]:
        """The shared rows of a generator with L = `length`; raises InputError for others."""
        if self.shared_rows is None:
            return band_rows(["fine"], length)
        if any(not 0 <= row < length for row in self.shared_rows):
            raise InputError(
                f"--share-rows: {describe_rows(self.shared_rows)}, expected rows of 0-{length - 1}"
            )
        return self.shared_rows


FRAME_BY_FRAME = Smoothing(0.0, 0.0, (), 0.0)


def quad_jitter(
    found: Float[np.ndarray, "n 4 2"], followed: Float[np.ndarray, "n 4 2"], cuts: Sequence[int]
) -> dict[str, float | None]:
    """Jitter of quads [n, 4, 2] "found" and "smoothed", as shares of their side.

    Args:
      found: NaN where there was no face.
      followed: of the same frames and more.
      cuts: frames that begin a new scene.
    """
    there = np.isfinite(found).all((1, 2))
    side = np.median(2 * np.hypot(*axes_of(found[there])[:, 2:].T))
    runs = runs_of(there.tolist(), cuts)
    before, after = (jitter(axes_of(quads) / side, runs) for quads in (found, followed))
    return {"found": before, "smoothed": after}


def latent_jitter(file: LatentFile, runs: Sequence[range]) -> float | None:
    """`video.metrics.jitter` of the last latents of frames, a few in memory at a time."""
    total, count = 0.0, 0
    for run in runs:
        last: list[np.ndarray] = []
        for i in run:
            last = [*last[-2:], file[frame_name(i)][-1].astype(np.float64)]
            if len(last) == 3:
                total += float(((last[2] - 2 * last[1] + last[0]) ** 2).sum())
                count += 1
    return float(np.sqrt(total / count)) if count else None
