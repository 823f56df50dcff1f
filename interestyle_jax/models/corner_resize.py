"""Bilinear resizing whose corner pixels stay corners: PyTorch's `align_corners=True`."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.models.products import einsum


def resize_corners(
    x: Float[jax.Array, "B H W C"], height: int, width: int
) -> Float[jax.Array, "B h w C"]:
    """Bilinear resize [B, H, W, C] -> [B, height, width, C] that maps corner pixels to corners.

    Half-pixel centres change pSp's latents by 13 % and Graphonomy's logits by 6 %.
    """
    rows = interpolation(x.shape[1], height)
    return resize_by(x, rows, interpolation(x.shape[2], width))


def resize_by(
    x: Float[jax.Array, "B H W C"],
    rows: Float[np.ndarray, "h H"],
    columns: Float[np.ndarray, "w W"],
) -> Float[jax.Array, "B h w C"]:
    """[B, H, W, C] -> [B, height, width, C] by weights [height, H] and [width, W]."""
    of_rows, of_columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return einsum("oh,bhwc->bowc", of_rows, einsum("ow,bhwc->bhoc", of_columns, x))


def interpolation(inputs: int, outputs: int) -> Float[np.ndarray, "m n"]:
    """Weights [outputs, inputs] of linear interpolation between pixels 0 and inputs - 1."""
    positions = np.linspace(0, inputs - 1, outputs)[:, None]
    return np.maximum(0, 1 - np.abs(positions - np.arange(inputs)))
