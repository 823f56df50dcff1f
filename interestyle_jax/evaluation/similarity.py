"""PSNR and MS-SSIM of images and inversions, per image: pure functions for use inside `jit`."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.models.corner_resize import resize_by

# Wang et al. 2003: weights of five scales, the finest first, and the window of SSIM.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
# Of pixels in [0, 1]: equal images have 100 dB.
SMALLEST_ERROR = 1e-10


def psnr(a: Float[jax.Array, "B H W 3"], b: Float[jax.Array, "B H W 3"]) -> Float[jax.Array, " B"]:
    """Peak signal-to-noise ratio in dB of images [B, H, W, 3] in [-1, 1]: [B], at most 100."""
    error = jnp.mean(jnp.square((a - b) / 2), axis=(1, 2, 3))
    return -10 * jnp.log10(jnp.maximum(error, SMALLEST_ERROR))


def num_scales(height: int, width: int) -> int:
    """Scales of MS-SSIM that images of this size have; 0 below 11 pixels.

    Five need 176 pixels on the shorter side. Smaller images have as many as the window fits in
    (three at 64), with the first weights scaled to the sum 1: figures of different sizes do not
    compare.
    """
    side, scales = min(height, width), 0
    while side >= WINDOW and scales < len(SCALE_WEIGHTS):
        side, scales = side // 2, scales + 1
    return scales


def ms_ssim(
    a: Float[jax.Array, "B H W 3"], b: Float[jax.Array, "B H W 3"]
) -> Float[jax.Array, " B"]:
    """Multi-scale structural similarity of images [B, H, W, 3] in [-1, 1]: [B], 1 where equal.

    Gaussian windows of 11 pixels, valid places only, halved by 2 x 2 means (an odd last row or
    column is left out), negative terms as 0, the mean over colours. Source: Wang et al. 2003.

    Raises:
      ValueError: images under 11 pixels.
    """
    scales = num_scales(*a.shape[1:3])
    if not scales:
        raise ValueError(f"images: expected at least {WINDOW} pixels a side, got {a.shape[1:3]}")
    weights = np.asarray(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    a, b = (a + 1) / 2, (b + 1) / 2
    result = jnp.ones((a.shape[0], a.shape[-1]))
    for i, weight in enumerate(weights):
        luminance, contrast = _terms(a, b)
        is_last = i == scales - 1
        term = (luminance * contrast if is_last else contrast).mean(axis=(1, 2))
        result = result * jnp.maximum(term, 0) ** weight
        if not is_last:
            a, b = _halved(a), _halved(b)
    return result.mean(axis=-1)


def _terms(a, b):
    """Luminance and contrast-structure maps."""
    rows, columns = _window(a.shape[1]), _window(a.shape[2])

    def local(x):
        return resize_by(x, rows, columns)

    mean_a, mean_b = local(a), local(b)
    variance_a, variance_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (variance_a + variance_b + C2)


def _window(side: int) -> Float[np.ndarray, "n side"]:
    """[side - 10, side]: the Gaussian window at every valid place."""
    places = np.arange(WINDOW) - WINDOW // 2
    gaussian = np.exp(-(places**2) / (2 * SIGMA**2))
    gaussian /= gaussian.sum()
    count = side - WINDOW + 1
    matrix = np.zeros((count, side))
    for i in range(count):
        matrix[i, i : i + WINDOW] = gaussian
    return matrix


def _halved(x):
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
