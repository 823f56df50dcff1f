"""Images as CLIP's image tower takes them: CLIP's own preprocessing, and StyleCLIP's."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.models.products import einsum


def clip_pixels(
    images: Float[jax.Array, "B H W 3"],
    size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[jax.Array, "B S S 3"]:
    """CLIP's preprocessing of images [B, H, W, 3] in [-1, 1]: [B, S, S, 3].

    The shorter side becomes `size` by antialiased bicubic interpolation, the middle is cut out,
    `mean` taken off and divided by `std`. Values are clipped to those of an image file, but not
    rounded to 256 steps as in a file.

    Args:
      images: any size.
      size: S.
      mean: of each colour of pixels in [0, 1].
      std: likewise.
    """
    batch, height, width, _ = images.shape
    short = min(height, width)
    shape = tuple(size * side // short for side in (height, width))
    x = jnp.clip(images.astype(jnp.float32), -1, 1)
    if shape != (height, width):
        x = jax.image.resize(x, (batch, *shape, 3), "cubic", antialias=True)
        x = jnp.clip(x, -1, 1)
    top, left = (round((side - size) / 2) for side in shape)
    x = x[:, top : top + size, left : left + size]
    return ((x + 1) / 2 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def area_pixels(images: Float[jax.Array, "B R R 3"], size: int) -> Float[jax.Array, "B S S 3"]:
    """StyleCLIP's input of CLIP: means over areas, with fractions at their edges, and no more.

    No clipping and no colour statistics: the official loss gives CLIP the generator's values.

    Args:
      images: [B, R, R, 3], any values.
      size: S; the result is [B, S, S, 3].

    Source: StyleCLIP `criteria/clip_loss.py`: sevenfold nearest upsampling, then means of R / 32.
    """
    rows, columns = (_area_weights(side, size) for side in images.shape[1:3])
    return einsum("sh,bhwc,tw->bstc", rows, images, columns)


def _area_weights(side: int, size: int) -> np.ndarray:
    """[S, R]: the share of every pixel in the mean of every cell."""
    edges = np.arange(size + 1) * (side / size)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * (size / side)).astype(np.float32)
