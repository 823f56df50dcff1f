"""CLIP's ResNet: a stem of three convolutions, means before strides, attention for a pool.

Source: openai/CLIP `model.py` `ModifiedResNet`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.convolution import conv
from interestyle_jax.models.products import Dense, einsum

# A block's output has so many times the channels of its inside.
EXPANSION = 4
# Halvings of the image: one in the stem's convolutions, one behind it, and one in three stages.
HALVINGS = 5


def _mean_pool(x: jax.Array, size: int) -> jax.Array:
    return nn.avg_pool(x, (size, size), strides=(size, size)) if size > 1 else x


class Bottleneck(nn.Module):
    """`x [B, H, W, C] -> [B, H / stride, W / stride, 4 features]`; means carry the stride."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B h w O"]:
        width = EXPANSION * self.features
        y = conv(self.features, 1, 1, "conv_1", x.dtype)(x)
        y = nn.relu(BatchNorm(name="norm_1")(y))
        y = conv(self.features, 3, 1, "conv_2", x.dtype)(y)
        y = _mean_pool(nn.relu(BatchNorm(name="norm_2")(y)), self.stride)
        y = BatchNorm(name="norm_3")(conv(width, 1, 1, "conv_3", x.dtype)(y))
        if self.stride > 1 or x.shape[-1] != width:
            x = conv(width, 1, 1, "shortcut_conv", x.dtype)(_mean_pool(x, self.stride))
            x = BatchNorm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """`x [B, H, W, C] -> [B, E]`: the map's mean asks, the mean and all places answer."""

    heads: int
    embed_dim: int

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B E"]:
        batch, width = len(x), x.shape[-1]
        x = x.reshape(batch, -1, width).astype(jnp.promote_types(x.dtype, jnp.float32))
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        start = nn.initializers.normal(width**-0.5)
        x = x + self.param("positional_embedding", start, x.shape[1:])

        def heads(name: str, y: jax.Array) -> jax.Array:
            y = Dense(width, kernel_init=start, name=name)(y)
            return y.reshape(batch, -1, self.heads, width // self.heads)

        q = heads("q_proj", x[:, :1])
        k, v = heads("k_proj", x), heads("v_proj", x)
        logits = einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
        y = einsum("bhqk,bkhd->bqhd", nn.softmax(logits), v).reshape(batch, width)
        return Dense(self.embed_dim, kernel_init=start, name="c_proj")(y)


class ModifiedResNet(nn.Module):
    """`pixels [B, S, S, 3] -> features [B, E]`; S is a multiple of 32.

    Statistics of BatchNorm are always the running ones. Blocks are named `block_0`, `block_1`, ...
    through all stages.

    Attributes:
      units: blocks in each stage.
      width: channels inside the first stage's blocks, doubled in each next one.
      heads: of the pooling.
      embed_dim: E.
      dtype: type of the maps, None for the pixels'; the pooling is computed in float32.
    """

    units: Sequence[int]
    width: int
    heads: int
    embed_dim: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, pixels: Float[jax.Array, "B S S 3"]) -> Float[jax.Array, "B E"]:
        x = pixels.astype(self.dtype or pixels.dtype)
        for i, (features, stride) in enumerate(
            ((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), start=1
        ):
            x = conv(features, 3, stride, f"stem_conv_{i}", x.dtype)(x)
            x = nn.relu(BatchNorm(name=f"stem_norm_{i}")(x))
        x = _mean_pool(x, 2)
        block = 0
        for stage, count in enumerate(self.units):
            for unit in range(count):
                stride = 2 if stage > 0 and unit == 0 else 1
                x = Bottleneck(self.width << stage, stride, name=f"block_{block}")(x)
                block += 1
        return AttentionPool(self.heads, self.embed_dim, name="pool")(x)
