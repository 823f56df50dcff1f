"""What `edit` and `mix` work on: image files that are inverted first, or latents of a file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.encoder_inputs import EncoderInputs
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import Item, Source
from interestyle_jax.jobs.latent_items import LatentItems
from interestyle_jax.jobs.tuned_generators import TunedGenerators

BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True)
class EditInputs:
    """Images or latents, by name.

    Attributes:
      items: the job's source.
      images: loads images; None of latents.
      num_iterations: N of the inversion, or None.
      options: what results depend on, as JSON.
      read: a latent [L, D] of an item, or None of images.
    """

    items: Source
    images: EncoderInputs | None
    num_iterations: int | None
    options: dict[str, Any]
    read: Callable[[Item], np.ndarray]


def open_inputs(
    model: Model,
    source: str | Path | None,
    latents: str | Path | None,
    *,
    alignment: Alignment | None = None,
    num_iterations: int | None = None,
    other_generator: bool = False,
    keep_pixels: bool = False,
    names: tuple[str, str] = ("--input", "--latents"),
) -> EditInputs:
    """Opens an image file or folder, or a `latents.npz` or its folder.

    Args:
      model: has the generator, and for images the encoder.
      source: images, or None.
      latents: latents, or None.
      alignment: how photographs are aligned, None takes images as they are.
      num_iterations: N; None as in `Model.invert`.
      other_generator: take latents of another generator.
      keep_pixels: keep images in full size while they are worked on.
      names: what the two are called in messages.

    Raises:
      InputError: neither or both, what they or the model lack, or an alignment of latents.
    """
    if (source is None) == (latents is None):
        raise InputError(f"{names[0]}, {names[1]}: expected one of them")
    if latents is not None:
        if alignment is not None or num_iterations is not None:
            raise InputError("--align, --steps: go with images, latents are inverted already")
        found = LatentItems(latents, model, other_generator=other_generator)
        where = {"latents": str(found.path.absolute())}
        return EditInputs(found, None, None, where, found.read)
    assert source is not None
    model.require_inversion()
    files, images = ImageFiles(source), EncoderInputs(model, alignment, keep_pixels=keep_pixels)
    iterations = model.iterations(num_iterations)
    options: dict[str, Any] = {
        "input": str(Path(source).absolute()),
        "steps": iterations,
        "alignment": None if alignment is None else alignment.options(),
    }
    return EditInputs(files, images, iterations, options, _no_latent)


def open_tuned(
    folder: str | Path | None, model: Model, inputs: EditInputs, *, other_generator: bool
) -> TunedGenerators | None:
    """The generators of latents' own, or None.

    Args:
      folder: see `TunedGenerators`, or None.
      model: has the generator that they differ from.
      inputs: latents.
      other_generator: see `TunedGenerators`.

    Raises:
      InputError: inputs that are images, or as `TunedGenerators`.
    """
    if folder is None:
        return None
    if inputs.images is not None:
        raise InputError("--tuned: goes with --latents, of the same `interestyle invert`")
    names = [inputs.items[i].name for i in range(len(inputs.items))]
    return TunedGenerators(folder, model, names, other_generator=other_generator)


def read_all(
    inputs: EditInputs, model: Model, *, most: int, name: str
) -> tuple[list[str], Float[np.ndarray, "n L D"]]:
    """Names and latents [n, L, D] of a few inputs; images are inverted.

    Args:
      inputs: see `open_inputs`.
      model: inverts them.
      most: how many there may be.
      name: what they are called in messages.

    Raises:
      InputError: more, or one that cannot be read.
    """
    count = len(inputs.items)
    if count > most:
        raise InputError(f"{name}: {count} of them, expected at most {most}")
    items = [inputs.items[i] for i in range(count)]
    names = [item.name for item in items]
    if inputs.images is None:
        return names, np.stack([inputs.read(item) for item in items])
    parts = []
    for first in range(0, count, BATCH_SIZE):
        rows: list[Any] = [inputs.images.load(item) for item in items[first : first + BATCH_SIZE]]
        batch = inputs.images.batch([*rows, *[None] * (min(BATCH_SIZE, count) - len(rows))])
        inversion = model.invert(batch, inputs.num_iterations, return_images="none")
        parts.append(jax.device_get(inversion.w_plus[-1])[: len(rows)])
    w_plus = np.concatenate(parts)
    wrong = [n for n, x in zip(names, w_plus, strict=True) if not np.isfinite(x).all()]
    if wrong:
        raise InputError(f"{wrong[0]}: its inversion by these weights is not finite")
    return names, w_plus


def _no_latent(item: Item) -> np.ndarray:
    raise ValueError(f"{item.name}: is an image")
