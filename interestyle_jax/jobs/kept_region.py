"""Edits that stay inside a region of the image: outside it is the original's."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interestyle_jax.data.images import resize_image
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import PROVIDERS, find_provider
from interestyle_jax.interest.providers.masks import label_indices, pick
from interestyle_jax.photos.paste_back import soft_mask

REGIONS = ("interest", "face")


@dataclasses.dataclass(frozen=True)
class Keep:
    """Where an edit may change an image.

    Attributes:
      region: "interest", "face", or labels of the provider, "hair,face"; the rest stays.
      masks: a mask provider, or a folder of interest masks of the images' names.
      weights: the provider's weights or model, where it needs other than its own.
      feather: width of the soft edge, inside the region, as a share of the image's side.
    """

    region: str
    masks: str = "selfie"
    weights: str | Path | None = None
    feather: float = 0.05

    def options(self) -> dict[str, Any]:
        """The fields as JSON."""
        options = dataclasses.asdict(self)
        if self.weights is not None:
            options["weights"] = os.path.abspath(self.weights)
        if self.masks not in PROVIDERS:
            options["masks"] = os.path.abspath(self.masks)
        return options


class KeptRegion:
    """Joins edited images with their originals; for any number of threads."""

    def __init__(self, keep: Keep):
        """Loads the provider.

        Raises:
          InputError: unknown provider, region or label, what the provider lacks, or a feather
            outside of [0, 0.5].
        """
        if not 0 <= keep.feather <= 0.5:
            raise InputError(f"--keep-feather: {keep.feather}, expected a share from 0 to 0.5")
        self.keep = keep
        self._provider = find_provider(keep.masks, keep.weights)
        self._labels = None
        if keep.region not in REGIONS:
            names = keep.region.split(",")
            self._labels = label_indices(names, self._provider.labels, option="--keep")

    def mask(
        self, original: UInt8[np.ndarray, "H W 3"], shape: tuple[int, int], *, name: str
    ) -> Float[np.ndarray, "h w 1"]:
        """Where the edit of an original, uint8 [H, W, 3], shows: [*shape, 1] in [0, 1].

        Raises:
          InputError: the provider has no such mask of the image, or the region is empty.
        """
        masks = self._provider(original, name=name)
        if self._labels is not None:
            mask = pick(masks.labels, self._labels)
        else:
            mask = getattr(masks, self.keep.region)
        if mask is None:
            raise InputError(
                f"--keep={self.keep.region}: the masks of '{self.keep.masks}' know no face"
            )
        if not mask.any():
            raise InputError(f"{name}: its region '{self.keep.region}' is empty")
        plane = Image.fromarray(mask[..., 0].astype(np.float32) / 255)
        scaled = np.asarray(plane.resize(shape[::-1], Image.Resampling.BILINEAR))
        return soft_mask(scaled, self.keep.feather * max(shape))[..., None]


def join(
    original: UInt8[np.ndarray, "H W 3"],
    edited: UInt8[np.ndarray, "H W 3"],
    mask: Float[np.ndarray, "H W 1"],
) -> UInt8[np.ndarray, "H W 3"]:
    """Edited [H, W, 3] inside a mask [H, W, 1] in [0, 1]; outside the original, to the bit."""
    blend = np.rint(original + (edited.astype(np.float32) - original) * mask).astype(np.uint8)
    return np.where(mask > 0, blend, original)


def at_size(
    pixels: UInt8[np.ndarray, "H W 3"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """An original [H, W, 3] at the size of its edit, [*shape, 3]."""
    return pixels if pixels.shape[:2] == shape else resize_image(pixels, shape)
