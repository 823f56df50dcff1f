"""From the known factors of an image to `w`, by layers like those of a mapping network."""

import flax.linen as nn
import jax
from jaxtyping import Float

from interestyle_jax.models.equalized import EqualDense


class FactorEmbedding(nn.Module):
    """`factors [B, F] -> w [B, D]`: `depth` dense layers with the scaled leaky ReLU.

    They can be the last layers of a `stylegan2.Mapping`, whose learning rate is a hundredth.
    """

    w_dim: int
    depth: int

    @nn.compact
    def __call__(self, factors: Float[jax.Array, "B F"]) -> Float[jax.Array, "B D"]:
        x = factors
        for i in range(self.depth):
            x = EqualDense(self.w_dim, activation=True, name=f"dense_{i}")(x)
        return x
