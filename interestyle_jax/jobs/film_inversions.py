"""The second stage of a film: its frames inverted, and their latents smoothed over time."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.data.images import encode_png
from interestyle_jax.jobs.encoder_inputs import EncoderInput
from interestyle_jax.jobs.film_frames import frame_name
from interestyle_jax.jobs.inversions import InversionJob
from interestyle_jax.jobs.job import Finished, Item, Result
from interestyle_jax.jobs.latent_job import PNG_LEVEL
from interestyle_jax.jobs.latents import JOINED, LatentFile, write_latents
from interestyle_jax.video.scenes import runs_of
from interestyle_jax.video.smoothing import frame_seconds, smoothing_weights

# An image, its name -> a mask uint8 [H, W, 1], or an image.
MaskOf = Callable[[np.ndarray, str], np.ndarray]


class FrameInversionJob(InversionJob):
    """Frames to inversions, with masks of the frames for the film that they become."""

    def __init__(self, *given: Any, masks: Mapping[str, MaskOf], mask_options: Any, **options: Any):
        """As `InversionJob`.

        Args:
          given: of `InversionJob`.
          masks: what is written as NAME_KIND.png of each frame, or its aligned face, by kind; from
            several threads.
          mask_options: where they come from, as JSON.
          options: of `InversionJob`.
        """
        super().__init__(*given, **options)
        self._masks = masks
        self.options = {**self.options, "film": True, "masks": mask_options}

    def outputs(self, name: str) -> tuple[str, ...]:
        """NAME.png and masks."""
        return (*super().outputs(name), *(f"{name}_{kind}.png" for kind in self._masks))

    def save(self, item: Item, loaded: EncoderInput, row: dict[str, np.ndarray]) -> Result:
        """The files of a frame; raises InputError where it has no mask, or is not finite."""
        saved = super().save(item, loaded, row)
        files = dict(saved.files)
        for kind, mask_of in self._masks.items():
            mask = mask_of(loaded.pixels, item.name)
            files[f"{item.name}_{kind}.png"] = encode_png(mask, compress_level=PNG_LEVEL)
        return Result(files, saved.facts, saved.latents)

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws `grid.png`."""
        report = super().finish(out, finished)
        return report | {"quads": {r["name"]: r.get("quad") for r in finished.records}}


def smooth_latents(
    found: LatentFile,
    out: Path,
    *,
    seconds: Float[np.ndarray, " n"],
    cuts: Sequence[int],
    sigma: float,
    rows: Sequence[int],
) -> LatentFile:
    """Writes `latents.npz` to `out`: each frame's last latent, smoothed within its scene.

    Nothing is written where the same is there already.

    Args:
      found: of the inversions.
      out: folder.
      seconds: when each frame is shown, [n].
      cuts: frames that begin a new scene.
      sigma: standard deviation of the smoothing in frames, 0 for none.
      rows: rows of w_plus that all frames of a scene share: their mean.
    """
    number = {int(name): name for name in found.names}
    runs = runs_of([i in number for i in range(len(seconds))], cuts)
    run_of = {i: run for run in runs for i in run}
    sigma_seconds, shared = sigma * frame_seconds(seconds), list(rows)
    means: dict[int, np.ndarray] = {}
    scene_of = np.searchsorted(np.array(sorted(cuts), int), np.arange(len(seconds)), "right")
    if shared:
        for scene in np.unique(scene_of):
            own = [i for i in np.flatnonzero(scene_of == scene).tolist() if i in number]
            if own:
                sum_ = np.zeros(found.shape[2:], np.float64)[shared]
                for i in own:
                    sum_ += found[number[i]][-1][shared]
                means[int(scene)] = sum_ / len(own)

    def smoothed(name: str) -> np.ndarray:
        i = int(name)
        window, weights = smoothing_weights(seconds, run_of[i], i, sigma_seconds)
        latent = np.zeros(found.shape[2:], np.float64)
        for j, weight in zip(window, weights, strict=True):
            latent += weight * found[number[j]][-1]
        if shared:
            latent[shared] = means[int(scene_of[i])]
        return latent.astype(np.float32)[None]

    names = [frame_name(i) for i in sorted(number)]
    shape = (1, *found.shape[2:])
    if (out / JOINED).is_file() or list(out.glob("latents-*.npz")):
        before = LatentFile(out)
        same = before.names == names and before.shape[1:] == shape
        if same and all(np.array_equal(before[name], smoothed(name)) for name in names):
            return before
    return write_latents(out, names, smoothed, shape, generator=found.generator)
