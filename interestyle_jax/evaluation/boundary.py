"""Boundary error (Fig. 7): where a region of an inversion differs from the original's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.evaluation.grids import draw_grid
from interestyle_jax.interest.providers import make_provider

Parse = Callable[[np.ndarray], np.ndarray]
RED = (1.0, -0.8, -0.8)
# Outlines: yellow is no colour of skin or hair.
YELLOW = (1.0, 1.0, -1.0)
# Chance from which a pixel is of the region.
INSIDE = 0.5


def wrong_pixels(
    region: Bool[np.ndarray, "*B H W"], original: Bool[np.ndarray, "*B H W"]
) -> Bool[np.ndarray, "*B H W"]:
    """[..., H, W]: where a region differs from the original's."""
    return region != original


def intersection_over_union(
    region: Bool[np.ndarray, "H W"], original: Bool[np.ndarray, "H W"]
) -> float | None:
    """IoU of two regions [H, W]; None where both are empty."""
    union = np.count_nonzero(region | original)
    return float(np.count_nonzero(region & original) / union) if union else None


def red_overlay(
    image: Float[np.ndarray, "H W 3"], wrong: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 3"]:
    """The image [H, W, 3] in [-1, 1] with the wrong pixels [H, W] in red."""
    return np.where(wrong[..., None], np.asarray(RED, np.float32), image)


def outline(region: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The outermost pixels [H, W] of a region: those beside a pixel that is not of it."""
    padded = np.pad(region, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return region & ~np.logical_and.reduce(beside)


def boundary_grid(
    images: Float[np.ndarray, "n H W 3"],
    inversions: Float[np.ndarray, "n H W 3"],
    regions: Bool[np.ndarray, "n 2 H W"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Image and inversion with their regions' outlines | the inversion, wrong pixels in red.

    Args:
      images, inversions: in [-1, 1].
      regions: of the images, then of the inversions.

    Returns:
      uint8 [h, w, 3], a row an image with its IoU.
    """
    rows, labels = [], []
    for image, inversion, (original, region) in zip(images, inversions, regions, strict=True):
        drawn = [
            np.where(outline(own)[..., None], np.asarray(YELLOW, np.float32), shown)
            for shown, own in ((image, original), (inversion, region))
        ]
        rows.append([*drawn, red_overlay(inversion, wrong_pixels(region, original))])
        iou = intersection_over_union(region, original)
        labels.append("no region" if iou is None else f"IoU {iou:.2f}")
    return draw_grid(rows, ["input", "inversion", "wrong region"], row_labels=labels)


def face_regions(
    reader: AttributeReader, images: Float[np.ndarray, "n R R 3"], *, batch_size: int = 50
) -> Bool[np.ndarray, "n R R"]:
    """The faces of avatars [n, R, R, 3] in [-1, 1], as a network reads them: [n, R, R]."""
    starts = range(0, len(images), batch_size)
    return np.concatenate(
        [reader(images[i : i + batch_size]).regions["face"] > INSIDE for i in starts]
    )


def load_parser(name_or_dir: str | Path) -> Parse:
    """What finds the face region of an image: uint8 [H, W, 3] -> bool [H, W].

    Args:
      name_or_dir: "selfie" (a person's silhouette, hair included) or "segformer", mask providers
        that need no weights of ours; "graphonomy=DIR"; or weights that read avatars' regions, such
        as "avatar_attributes".

    Raises:
      InputError: no such weights, or none of these kinds.
    """
    name, _, weights = str(name_or_dir).partition("=")
    if name in ("selfie", "segformer", "graphonomy"):
        provider = make_provider(name, weights=weights or None)

        def parse(image):
            masks = provider(image)
            found = masks.interest if masks.face is None else masks.face
            return found[..., 0] > 127

        return parse
    reader = AttributeReader(name_or_dir)

    def read(image):
        size = reader.resolution
        if image.shape[:2] != (size, size):
            raise InputError(
                f"parser: {name_or_dir} reads images of {size} x {size}, got "
                f"{image.shape[0]} x {image.shape[1]}"
            )
        return face_regions(reader, to_float(image)[None])[0]

    return read
