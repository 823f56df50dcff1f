"""e4e's discriminator of latents: is a row of `w_plus` like a `w` of the mapping network?"""

import flax.linen as nn
import jax
from jaxtyping import Float

from interestyle_jax.models.encoders import HEAD_INIT
from interestyle_jax.models.products import Dense

SLOPE = 0.2


class LatentDiscriminator(nn.Module):
    """Dense layers with a leaky ReLU (slope 0.2) between them: `w [B, w_dim] -> logits [B]`.

    Attributes:
      w_dim: width of a latent, and of the hidden layers.
      depth: layers, the last of which gives the logit.

    Source: e4e `models/discriminator.py` `LatentCodesDiscriminator`.
    """

    w_dim: int = 512
    depth: int = 4

    @nn.compact
    def __call__(self, w: Float[jax.Array, "B D"]) -> Float[jax.Array, " B"]:
        for i in range(self.depth - 1):
            w = Dense(self.w_dim, kernel_init=HEAD_INIT, name=f"dense_{i}")(w)
            w = nn.leaky_relu(w, SLOPE)
        last = Dense(1, kernel_init=HEAD_INIT, name=f"dense_{self.depth - 1}")
        return last(w)[..., 0]
