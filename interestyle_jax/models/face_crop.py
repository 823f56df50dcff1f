"""The part of an image that face embedders look at in losses and measurements."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

# Where the official identity loss looks in an image of ID_SIZE pixels: rows, then columns.
ID_SIZE = 256
ID_ROWS = (35, 223)
ID_COLUMNS = (32, 220)


def id_crop(images: Float[jax.Array, "B H W C"], *, size: int = 112) -> Float[jax.Array, "B s s C"]:
    """The part of an image that the official identity loss embeds: [B, H, W, 3] -> [B, s, s, 3].

    Images of another size than 256 are average-pooled to 256 first (smaller ones get repeated
    pixels), as the official code does, so the crop is the same part of a face at any working size.
    Then rows 35:223 and columns 32:220 are average-pooled to `size`. No alignment: images are
    taken to be framed as FFHQ's. Windows overlap where sizes do not divide, as PyTorch's
    `AdaptiveAvgPool2d` has them.

    Source: the official `id_loss.py`.
    """
    rows, columns = (
        _window_means(last - first, size) @ _window_means(side, ID_SIZE)[first:last]
        for side, (first, last) in zip(images.shape[1:3], (ID_ROWS, ID_COLUMNS), strict=True)
    )
    rows, columns = jnp.asarray(rows, images.dtype), jnp.asarray(columns, images.dtype)
    return jnp.einsum(
        "ih,bhwc,jw->bijc", rows, images, columns, precision=jax.lax.Precision.HIGHEST
    )


def _window_means(size: int, target: int) -> np.ndarray:
    """[target, size]: row i averages the i-th window of `AdaptiveAvgPool1d`."""
    matrix = np.zeros((target, size))
    for i in range(target):
        first, last = size * i // target, -(-size * (i + 1) // target)
        matrix[i, first:last] = 1 / (last - first)
    return matrix
