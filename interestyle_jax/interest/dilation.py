"""Growing a mask by a radius (paper section 3.2, Fig. 5)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.errors import InputError


def dilate(mask: Float[jax.Array, "B H W C"], radius: float) -> Float[jax.Array, "B H W C"]:
    """Grey dilation by a disk: each pixel becomes the largest value within `radius` pixels of it.

    The interest region must reach a little over the boundary of the face, or the loss cannot
    penalise an inverted face that overflows it.

    Args:
      mask: [B, H, W, 1] (any channel count), in [0, 1]; outside the image counts as nothing.
      radius: in pixels of the mask, at least 0; a Python number, since it sets the disk's shape.
        The disk holds the offsets with dy^2 + dx^2 <= radius^2.

    Returns:
      The same shape and dtype; for radius below 1 the mask itself.

    Raises:
      InputError: negative or non-finite radius, or a mask that is not [B, H, W, C].
    """
    if not (math.isfinite(radius) and radius >= 0):
        raise InputError(f"dilation_radius: expected a number of pixels from 0, got {radius}")
    if mask.ndim != 4:
        raise InputError(f"mask: expected [B, H, W, 1], got {mask.shape}")
    reach = math.floor(radius)
    if reach == 0:
        return mask
    height = mask.shape[1]
    rows: dict[int, jax.Array] = {}
    result = None
    for dy in range(-reach, reach + 1):
        half = math.floor(math.sqrt(radius * radius - dy * dy))
        if half not in rows:
            wide = _running_max(mask, half)
            rows[half] = jnp.pad(
                wide, ((0, 0), (reach, reach), (0, 0), (0, 0)), constant_values=-jnp.inf
            )
        shifted = rows[half][:, reach + dy : reach + dy + height]
        result = shifted if result is None else jnp.maximum(result, shifted)
    return result


def _running_max(mask: jax.Array, half: int) -> jax.Array:
    """Largest value of [B, H, W, C] among the `half` pixels to either side in a row."""
    if half == 0:
        return mask
    return jax.lax.reduce_window(
        mask, -jnp.inf, jax.lax.max, (1, 1, 2 * half + 1, 1), (1, 1, 1, 1), "SAME"
    )
