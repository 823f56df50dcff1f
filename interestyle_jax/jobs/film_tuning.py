"""A stage of a film by option: one generator tuned on all of its frames."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from interestyle_jax.data.images import read_image, read_mask, resize_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.optimisation.shared_tuning import (
    LEARNING_RATE,
    Frames,
    tune_generator,
)
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.json_file import parse_json
from interestyle_jax.weights import METADATA, digest, save_weights

TARGET, SEED = "target", 0
BATCH_SIZE = 4


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How the generator is tuned.

    Attributes:
      passes: how often each frame is seen; 0 leaves the generator as it is.
      rate: of Adam.
    """

    passes: int = 0
    rate: float = LEARNING_RATE

    def check(self) -> None:
        """Raises InputError for a rate that is none."""
        if not 0 < self.rate < np.inf:
            raise InputError(f"--tune-rate: {self.rate}, expected above 0")


def tune_film(
    model: Model, tuning: Tuning, latents: LatentFile, inversions: Path, out: Path, *, mask: bool
) -> Path:
    """Weights like the model's, with a generator that draws the frames better: `out`/tuned.

    Not done again where they are there already, for the same latents and frames.

    Args:
      model: has the generator.
      tuning: how.
      latents: the frames' smoothed ones.
      inversions: folder of NAME_target.png, and with `mask` of NAME_paste.png, where they count.
      out: folder.
      mask: whether there are masks.

    Raises:
      InputError: the loss is not finite, or as `save_weights`.
    """
    folder = out / "tuned"
    given: dict[str, Any] = {
        **dataclasses.asdict(tuning),
        "weights": digest(model.directory),
        "files": [_state(path) for path in latents.paths],
        "frames": [
            _state(inversions / f"{latents.names[i]}_{TARGET}.png")
            for i in (0, len(latents.names) - 1)
        ],
        "mask": mask,
    }
    try:
        before = parse_json((folder / METADATA).read_bytes())
        if before["extra"]["tuning"] == given:
            return folder
    except (OSError, ValueError, LookupError, TypeError):
        pass
    size = BATCH_SIZE * model.num_devices
    count = -(-len(latents.names) * tuning.passes // size)
    with tqdm(total=count, desc="tune", unit="step") as bar:

        def told(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}")
            bar.update()

        tuned = tune_generator(
            model,
            _batches(latents, inversions, size=size, count=count, mask=mask),
            learning_rate=tuning.rate,
            on_step=told,
        )
    save_weights(
        folder,
        {**jax.device_get(model.variables), "generator": jax.device_get(tuned)},
        family=model.metadata["family"],
        architectures=model.metadata["architectures"],
        licence=model.metadata["licence"],
        force=True,
        extra={"tuning": given},
    )
    return folder


def _state(path: Path) -> list[Any]:
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]


def _batches(
    latents: LatentFile, inversions: Path, *, size: int, count: int, mask: bool
) -> Iterator[Frames]:
    """Batches of frames, each pass in an order of its own."""
    rng = np.random.default_rng(SEED)
    waiting: list[str] = []
    for _ in range(count):
        while len(waiting) < size:
            waiting += rng.permutation(latents.names).tolist()
        names, waiting = waiting[:size], waiting[size:]
        yield _read(latents, inversions, names, mask=mask)


def _read(latents: LatentFile, inversions: Path, names: Sequence[str], *, mask: bool) -> Frames:
    images = np.stack([to_float(read_image(inversions / f"{n}_{TARGET}.png")) for n in names])
    masks = np.ones((*images.shape[:3], 1), np.float32)
    if mask:
        for own, name in zip(masks, names, strict=True):
            found = resize_image(read_mask(inversions / f"{name}_paste.png"), own.shape[:2])
            own[:] = found.astype(np.float32) / 255
    return Frames(np.stack([latents[name][-1] for name in names]), images, masks)
