"""How far images are apart."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

# Two batches [B, H, W, 3] -> [B], e.g. LPIPS.
Distance = Callable[[jax.Array, jax.Array], jax.Array]


def l2(a: Float[jax.Array, "B H W C"], b: Float[jax.Array, "B H W C"]) -> Float[jax.Array, " B"]:
    """Mean squared difference over all pixels and channels: [B, H, W, C] twice -> [B]."""
    return jnp.mean(jnp.square(a - b), axis=(1, 2, 3))
