"""What is kept of each frame beside its inversion: masks for the paste, and what tuning aims at."""

from typing import Any, NamedTuple

import numpy as np

from interestyle_jax.data.images import resize_image
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import find_provider
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.aligned_faces import PASTE_MASKS, Alignment
from interestyle_jax.jobs.film_inversions import MaskOf
from interestyle_jax.jobs.film_tuning import TARGET
from interestyle_jax.jobs.kept_region import Keep, KeptRegion


class FrameMasks(NamedTuple):
    """By kind, "paste", "keep" and TARGET: what is made of a frame, and where it comes from.

    Attributes:
      functions: of the frame, or its aligned face.
      options: as JSON.
    """

    functions: dict[str, MaskOf]
    options: dict[str, Any]


def frame_masks(
    model: Model,
    alignment: Alignment | None,
    paste_mask: MaskOf | None,
    keep: Keep | None,
    *,
    tuned: bool,
) -> FrameMasks:
    """The masks that a film needs.

    Args:
      model: draws the film.
      alignment, paste_mask: as of `films.invert_film`.
      keep: as of `edits.edit_files`.
      tuned: whether a generator is tuned to draw the frames.

    Raises:
      InputError: an unknown provider, or what it or `keep` lacks.
    """
    masks = FrameMasks({}, {})
    if paste_mask is None and alignment is not None and alignment.mask is not None:
        paste_mask = _provided(alignment)
    if paste_mask is not None:
        masks.functions["paste"] = paste_mask
        masks.options["paste"] = None if alignment is None else alignment.mask
    if keep is not None:
        region = KeptRegion(keep)

        def kept(image: np.ndarray, name: str) -> np.ndarray:
            soft = region.mask(image, _drawn_shape(model), name=name)
            return np.rint(255 * soft).astype(np.uint8)

        masks.functions["keep"], masks.options["keep"] = kept, keep.options()
    if tuned:

        def target(image: np.ndarray, name: str) -> np.ndarray:
            del name
            return resize_image(image, _drawn_shape(model))

        masks.functions[TARGET], masks.options[TARGET] = target, True
    return masks


def _provided(alignment: Alignment) -> MaskOf:
    if alignment.mask not in PASTE_MASKS:
        known = ", ".join(PASTE_MASKS)
        raise InputError(f"mask: '{alignment.mask}', expected one of {known}")
    provider = find_provider(alignment.mask, alignment.mask_weights, option="mask")

    def paste_mask(image: np.ndarray, name: str) -> np.ndarray:
        return provider(image, name=name).interest

    return paste_mask


def _drawn_shape(model: Model) -> tuple[int, int]:
    """Height and width of what is drawn for this encoder."""
    side, (height, width) = model.resolution, model.input_shape
    return (round(side * height / max(height, width)), round(side * width / max(height, width)))
