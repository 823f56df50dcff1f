"""From the known factors of an image to `w`: a linear part, and what a small network adds."""

import flax.linen as nn
import jax
from jaxtyping import Float


class FactorEmbedding(nn.Module):
    """`factors [B, F] -> w [B, D]`.

    Attributes:
      w_dim: D, width of `w`.
      features: width of the two hidden layers.
    """

    w_dim: int = 512
    features: int = 512

    @nn.compact
    def __call__(self, factors: Float[jax.Array, "B F"]) -> Float[jax.Array, "B D"]:
        x = factors
        for i in range(2):
            x = nn.leaky_relu(nn.Dense(self.features, name=f"dense_{i}")(x), 0.2)
        return nn.Dense(self.w_dim, name="linear")(factors) + nn.Dense(self.w_dim, name="out")(x)
