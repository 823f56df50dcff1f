"""The nearest of many images to each of a few: are a generator's samples copies?"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.data.pixels import to_float


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The nearest image to each query.

    Attributes:
      distance: mean squared difference over pixels and channels, images in [-1, 1]; [n].
      image: the nearest image, mirrored where that is nearer; uint8 [n, H, W, 3].
    """

    distance: np.ndarray
    image: np.ndarray


def nearest_images(
    queries: UInt8[np.ndarray, "n H W 3"], batches: Iterable[UInt8[np.ndarray, "_ H W 3"]]
) -> Nearest:
    """Compares every query with every image and with its mirror image, by L2.

    Args:
      queries: uint8 [n, H, W, 3].
      batches: uint8 [b, H, W, 3] each; read once.

    Raises:
      ValueError: no batches, or images of another size.
    """
    count = len(queries)
    straight, mirrored = _rows(queries), _rows(queries[:, :, ::-1])
    own = np.square(straight).sum(1)
    best = np.full(count, np.inf, np.float32)
    image = np.zeros_like(queries)
    for batch in batches:
        if batch.shape[1:] != queries.shape[1:]:
            raise ValueError(f"images: {batch.shape[1:]}, expected {queries.shape[1:]}")
        rows = _rows(batch)
        other = np.square(rows).sum(1)
        for turned, query in ((False, straight), (True, mirrored)):
            distance = own[:, None] + other[None, :] - 2 * query @ rows.T
            index = distance.argmin(1)
            distance = distance[np.arange(count), index]
            closer = distance < best
            best[closer] = distance[closer]
            found = batch[index[closer]]
            image[closer] = found[:, :, ::-1] if turned else found
    if not np.all(np.isfinite(best)):
        raise ValueError("batches: no images")
    # Rounding of the expanded square may fall below zero for equal images.
    return Nearest(np.maximum(best, 0) / straight.shape[1], image)


def _rows(images: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] -> float32 [n, H * W * 3] in [-1, 1]."""
    return to_float(images.reshape(len(images), -1))
