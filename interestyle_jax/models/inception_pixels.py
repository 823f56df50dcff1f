"""Images as Inception-v3 takes them, in the three forms that are in use: three different FIDs."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.models.corner_resize import resize_by
from interestyle_jax.models.inception import INPUT_SIZE

MODES = ("pytorch-fid", "clean", "nvidia")


def inception_pixels(
    images: Float[jax.Array, "B H W 3"], mode: str, *, size: int = INPUT_SIZE
) -> Float[jax.Array, "B S S 3"]:
    """Resizes and scales images [B, H, W, 3] in [-1, 1] to the network's input [B, size, size, 3].

    - "pytorch-fid": bilinear at half-pixel centres, no antialiasing; [0, 255] becomes [-1, 1].
    - "clean": PIL's antialiased bicubic filter in float, clipped, not rounded; (x - 128) / 128.
    - "nvidia": TensorFlow 1's bilinear filter, sampling at i * H / size; (x - 128) / 128.

    Args:
      images: 8-bit images as floats.
      mode: one of `MODES`.
      size: 299.

    Raises:
      ValueError: unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    weights = {"pytorch-fid": _bilinear, "clean": _bicubic, "nvidia": _tf1_bilinear}[mode]
    x = jnp.round((images.astype(jnp.float32) + 1) * 127.5)
    x = resize_by(x, weights(x.shape[1], size), weights(x.shape[2], size))
    if mode == "pytorch-fid":
        return x / 127.5 - 1
    if mode == "clean":
        x = jnp.clip(x, 0, 255)
    return (x - 128) / 128


def _linear(positions: np.ndarray, side: int) -> np.ndarray:
    """[n, side]: linear interpolation at positions, the edge beyond it."""
    positions = np.clip(positions, 0, side - 1)[:, None]
    return np.maximum(0, 1 - np.abs(positions - np.arange(side)))


def _bilinear(side: int, size: int) -> np.ndarray:
    return _linear((np.arange(size) + 0.5) * side / size - 0.5, side)


def _tf1_bilinear(side: int, size: int) -> np.ndarray:
    return _linear(np.arange(size) * side / size, side)


def _bicubic(side: int, size: int) -> np.ndarray:
    """Keys's kernel with a = -1/2, as wide as the reduction, over the pixels that there are."""
    scale = max(1.0, side / size)
    centres = (np.arange(size) + 0.5) * side / size
    t = np.abs((np.arange(side) + 0.5)[None] - centres[:, None]) / scale
    inner, outer = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = np.where(t < 1, inner, np.where(t < 2, outer, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
