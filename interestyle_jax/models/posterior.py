"""A posterior of z for every image: the encoder half of a variational autoencoder around G.

Source: VAE/GAN (Larsen et al. 2016, arXiv:1512.09300); the trunk is StyleGAN2's discriminator.
"""

import flax.linen as nn
import jax
from jaxtyping import Float

from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.equalized import EqualConv, EqualDense


class Posterior(nn.Module):
    """`images [B, R, R, 3] in [-1, 1] -> (mean [B, Z], log variance [B, Z])`.

    Attributes:
      resolution: height and width of the images, a power of two.
      z_dim: Z, the width of `z`.
      channel_base: as the discriminator's.
      channel_max: as the discriminator's.
      features: width of the dense layer before the two heads.
    """

    resolution: int
    z_dim: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    features: int = 512

    @nn.compact
    def __call__(
        self, images: Float[jax.Array, "B R R 3"]
    ) -> tuple[Float[jax.Array, "B Z"], Float[jax.Array, "B Z"]]:
        trunk = Discriminator(self.resolution, self.channel_base, self.channel_max, name="trunk")
        x = trunk(images, return_features=True)
        x = EqualConv(x.shape[-1], 3, activation=True, name="conv_4")(x)
        x = EqualDense(self.features, activation=True, name="dense")(x.reshape(len(x), -1))
        mean = EqualDense(self.z_dim, name="mean")(x)
        # Begins a little narrower than the prior, and moves at a tenth of the rate.
        log_variance = 0.1 * EqualDense(self.z_dim, name="log_variance")(x) - 1.0
        return mean, log_variance
