"""What recipes need to know of a generator's W: its mean, its spread, its whitening."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.inversion.inverter import Model
from interestyle_jax.models.products import matmul

# Source: `projector.py` of stylegan2-ada.
SEED = 123
# II2S whitens what a leaky ReLU of this slope makes of w: it undoes the mapping's own of 0.2.
SLOPE = 5.0
BATCH_SIZE = 10_000


class Spread(NamedTuple):
    """Mean of W, [D], and its spread, the root of the mean squared distance from it."""

    mean: np.ndarray
    spread: float


class Whitening(NamedTuple):
    """Of leaky_relu(w, 5): the mean [D], principal directions [D, D] in rows, deviations [D]."""

    mean: jax.Array
    directions: jax.Array
    deviations: jax.Array


def measure_spread(model: Model, num_samples: int) -> Spread:
    """Mean and spread over samples of NumPy's RandomState(123), as the projector takes them."""
    z = np.random.RandomState(SEED).randn(num_samples, _z_dim(model)).astype(np.float32)
    w = np.asarray(model.map(z), np.float64)
    mean = w.mean(axis=0)
    return Spread(mean.astype(np.float32), float(np.sqrt(np.sum(np.square(w - mean)) / len(w))))


def measure_whitening(model: Model, num_samples: int) -> Whitening:
    """The whitening of II2S, over so many samples (there a million).

    Source: Zhu et al., "Improved StyleGAN Embedding" (arXiv 2012.09036), section 3.2.
    """
    random = np.random.RandomState(SEED)
    total: Any = 0.0
    products: Any = 0.0
    count = 0
    while count < num_samples:
        size = min(BATCH_SIZE, num_samples)
        z = random.randn(size, _z_dim(model)).astype(np.float32)
        x = np.asarray(jax.nn.leaky_relu(model.map(z), SLOPE), np.float64)[: num_samples - count]
        total, products, count = total + x.sum(axis=0), products + x.T @ x, count + len(x)
    mean = total / count
    variances, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    # Directions in which nothing varies would be divided by 0.
    deviations = np.sqrt(np.maximum(variances, 1e-12 * variances.max()))
    parts = (mean, directions.T, deviations)
    return Whitening(*(jnp.asarray(part, jnp.float32) for part in parts))


def prior_loss(whitening: Whitening, w_plus: Float[jax.Array, "B L D"]) -> Float[jax.Array, " B"]:
    """P_N of II2S: the mean square of whitened latents [B, L, D] -> [B]."""
    x = jax.nn.leaky_relu(w_plus, SLOPE) - whitening.mean
    p = matmul(x, whitening.directions.T) / whitening.deviations
    return jnp.mean(jnp.square(p), axis=(1, 2))


def _z_dim(model: Model) -> int:
    return model.network("generator").z_dim
