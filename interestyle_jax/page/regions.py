"""What of an upload is a face and what its interest region, and edits put back into the upload."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interestyle_jax.data.images import resize_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.interest.overlay import INTEREST_COLOUR, draw_over
from interestyle_jax.jobs.aligned_faces import PASTE_MASKS
from interestyle_jax.jobs.kept_region import find_provider, join
from interestyle_jax.photos.ffhq_alignment import align
from interestyle_jax.photos.landmarks import Landmarker, find_face, make_landmarker
from interestyle_jax.photos.paste_back import paste_back, soft_mask

# Masks by a network that reads avatars, whose face and hair it knows; or none at all.
AVATARS, NONE = "avatars", "none"
MASKS = (AVATARS, *PASTE_MASKS, NONE)
# Of the longer side: masks are no finer, and what is pasted into a whole upload is no larger.
MASK_SIDE, PASTED_SIDE = 512, 2048
SMALLEST_ALIGNED, LARGEST_ALIGNED = 256, 1024
# Width of the soft edge inside the mask, as a share of the side.
FEATHER = 0.05

Mask = UInt8[np.ndarray, "h w 1"]


class Aligned(NamedTuple):
    """The face of an upload: uint8 [S, S, 3], and its quad [4, 2] there."""

    image: np.ndarray
    quad: np.ndarray


class Regions:
    """Faces and interest masks of images; one call at a time.

    Attributes:
      masks: one of MASKS.
      can_align: whether faces of photographs can be found here.
    """

    def __init__(
        self,
        masks: str | None,
        *,
        avatars: bool,
        resolution: int,
        weights: str | Path | None = None,
    ):
        """Loads the networks.

        Args:
          masks: one of MASKS; None: "avatars", and of photographs "selfie" where LiteRT is
            installed, else "none".
          avatars: the images are avatars and no photographs.
          resolution: side of the generator's images.
          weights: those of the masks' network, where it needs other than its own.

        Raises:
          InputError: unknown masks, or what they lack.
        """
        self.can_align = not avatars and importlib.util.find_spec("ai_edge_litert") is not None
        if masks is None:
            masks = AVATARS if avatars else "selfie" if self.can_align else NONE
        if masks not in MASKS:
            raise InputError(f"--masks: '{masks}', expected one of {', '.join(MASKS)}")
        self.masks = masks
        self._side = min(max(resolution, SMALLEST_ALIGNED), LARGEST_ALIGNED)
        self._landmarker: Landmarker | None = make_landmarker("litert") if self.can_align else None
        self._mask: Callable[[np.ndarray, np.ndarray], Mask] | None = None
        if masks == AVATARS:
            self._mask = _AvatarMasks(weights)
        elif masks != NONE:
            provider = find_provider(masks, weights, option="--masks")
            self._mask = lambda image, inverted: provider(image).interest

    def align(self, image: UInt8[np.ndarray, "H W 3"], *, name: str) -> Aligned:
        """The upright face of a photograph, uint8 [H, W, 3], as FFHQ shows faces.

        Raises:
          InputError: no face was found, or nothing here finds faces.
        """
        if self._landmarker is None:
            raise InputError("faces are not aligned here: leave the box empty")
        try:
            face, _ = find_face(image, self._landmarker, name=name)
        except InputError as error:
            raise InputError(f"{error}; without alignment the whole image is inverted") from error
        return Aligned(*align(image, face.points, size=self._side))

    def mask(
        self, image: UInt8[np.ndarray, "H W 3"], inverted: UInt8[np.ndarray, "h w 3"]
    ) -> Mask | None:
        """The interest mask of an image, 255 inside, of MASK_SIDE at most; None without masks.

        Args:
          image: uint8 [H, W, 3], what was inverted.
          inverted: its inversion.
        """
        return None if self._mask is None else self._mask(limited(image, MASK_SIDE), inverted)


class _AvatarMasks:
    """Face and hair where both the upload and its inversion show them.

    The reader was trained before plain backgrounds. On the inversion it is not misled by what is
    behind an avatar and in front of it, on the upload not by what the inversion makes of them.
    """

    def __init__(self, weights: str | Path | None):
        self._reader = AttributeReader(weights or "avatar_attributes")

    def __call__(self, image: np.ndarray, inverted: np.ndarray) -> Mask:
        shape = (self._reader.resolution, self._reader.resolution)
        both = np.stack([to_float(resize_image(x, shape)) for x in (image, inverted)])
        chance = self._reader(both).regions["interest"].min(axis=0)
        plane = Image.fromarray(chance.astype(np.float32))
        large = plane.resize(image.shape[1::-1], Image.Resampling.BILINEAR)
        return np.where(np.asarray(large) >= 0.5, 255, 0).astype(np.uint8)[..., None]


def overlay(image: UInt8[np.ndarray, "H W 3"], mask: Mask) -> UInt8[np.ndarray, "h w 3"]:
    """An image with its mask, uint8 [h, w, 1], tinted and outlined, at the mask's size."""
    return draw_over(resize_image(image, mask.shape[:2]), mask, INTEREST_COLOUR)


def pasted(
    upload: UInt8[np.ndarray, "H W 3"],
    edited: UInt8[np.ndarray, "h w 3"],
    mask: Mask,
    quad: Float[np.ndarray, "4 2"] | None,
) -> UInt8[np.ndarray, "H W 3"]:
    """An upload with an edit of it laid over its interest region, whose edge is soft.

    Args:
      upload: uint8 [H, W, 3].
      edited: uint8 [h, w, 3], of its aligned face or of all of it.
      mask: of the aligned face or of all of it, uint8 [..., 1].
      quad: [4, 2] of the aligned face; None: all of it, squeezed. Then the result's longer side is
        at most PASTED_SIDE.

    Raises:
      InputError: the mask is empty.
    """
    if not mask.any():
        raise InputError("the interest mask is empty: there is nothing to paste back")
    plane = Image.fromarray(mask[..., 0].astype(np.float32) / 255)
    if quad is not None:
        size = edited.shape[1::-1]
        scaled = np.asarray(plane.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
        return paste_back(upload, edited, quad, mask=scaled, feather=FEATHER)
    upload = limited(upload, PASTED_SIDE)
    shape = upload.shape[:2]
    scaled = np.asarray(plane.resize(shape[::-1], Image.Resampling.BILINEAR)).clip(0, 1)
    soft = soft_mask(scaled, FEATHER * max(shape))[..., None]
    return join(upload, resize_image(edited, shape), soft)


def limited(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """An image [H, W, 3] reduced until its longer side is at most `side`."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    return resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))
