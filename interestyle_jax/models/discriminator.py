"""The StyleGAN2 discriminator D: residual blocks, minibatch standard deviation, one logit.

Source: StyleGAN2 (Karras et al. 2020), config F; rosinality `model.py` `Discriminator`.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.equalized import EqualConv, EqualDense
from interestyle_jax.models.resample import blur, downsample


def minibatch_stddev(
    x: Float[jax.Array, "B H W C"], *, group: int = 4
) -> Float[jax.Array, "B H W C+1"]:
    """Appends the mean standard deviation over a group of images as one channel.

    Members of a group lie B/group apart, as in the official code.

    Args:
      x: [B, H, W, C].
      group: images a group (at most B); must divide B.

    Returns:
      [B, H, W, C + 1].

    Raises:
      ValueError: the group does not divide the batch.
    """
    batch, height, width, channels = x.shape
    group = min(batch, group)
    if batch % group:
        raise ValueError(f"batch: expected a multiple of {group}, got {batch}")
    y = x.reshape(group, batch // group, height, width, channels)
    deviation = jnp.sqrt(jnp.var(y, axis=0) + 1e-8).mean(axis=(1, 2, 3))
    deviation = jnp.tile(deviation, group)[:, None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(deviation, (batch, height, width, 1))], axis=-1)


class ResBlock(nn.Module):
    """`x [B, H, W, I] -> [B, H/2, W/2, features]`: two convolutions beside a 1x1 skip."""

    features: int

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W I"]) -> Float[jax.Array, "B H//2 W//2 O"]:
        y = EqualConv(x.shape[-1], 3, activation=True, name="conv_0")(x)
        y = blur(y, padding=(2, 2))
        y = EqualConv(self.features, 3, halve=True, activation=True, name="conv_1")(y)
        skip = EqualConv(self.features, 1, bias=False, name="skip")(downsample(x))
        return (y + skip) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """`images [B, R, R, 3] in [-1, 1] -> logits [B]`, positive for real.

    Attributes:
      resolution: height and width of the images, a power of two.
      channel_base: channels at resolution r are min(channel_max, channel_base // r).
      channel_max: most channels of a layer.
    """

    resolution: int = 1024
    channel_base: int = 32768
    channel_max: int = 512

    def channels(self, resolution: int) -> int:
        """Channels of the layers at one resolution."""
        return min(self.channel_max, self.channel_base // resolution)

    @nn.compact
    def __call__(
        self, images: Float[jax.Array, "B R R 3"], *, return_features: bool = False
    ) -> Float[jax.Array, "B ..."]:
        """Judges images; with `return_features` gives the map before the stddev layer."""
        x = EqualConv(self.channels(self.resolution), 1, activation=True, name="from_rgb")(images)
        resolution = self.resolution
        while resolution > 4:
            resolution //= 2
            x = ResBlock(self.channels(resolution), name=f"block_{resolution}")(x)
        if return_features:
            return x
        x = minibatch_stddev(x)
        x = EqualConv(self.channels(4), 3, activation=True, name="conv_4")(x)
        # The official dense layer reads channel-major features; the converter permutes its rows.
        x = x.reshape(x.shape[0], -1)
        x = EqualDense(self.channels(4), activation=True, name="dense_4")(x)
        return EqualDense(1, name="logit")(x)[:, 0]
