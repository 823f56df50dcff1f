"""Encoders E: an image pair to a change of latents."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.ir_se import IRTrunk
from interestyle_jax.models.products import conv_general_dilated, einsum
from interestyle_jax.models.resnet import ResNetTrunk

HEAD_SLOPE = 0.01
# PyTorch's default for convolutions, which the official heads keep: U(-1/sqrt(n), 1/sqrt(n)).
HEAD_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class StyleHeads(nn.Module):
    """All style heads side by side: `x [B, H, W, C] -> [B, num_styles, w_dim]`.

    One head ("GradualStyleBlock") is `depth` 3x3 convolutions of stride 2 with one pixel of zeros
    around, each with a leaky ReLU (slope 0.01), and an equalised dense layer. A layer of all heads
    is one kernel whose last axis runs through the heads: head i owns columns
    [i * width, (i + 1) * width). So gradient centralisation, a mean over all axes but the last,
    treats every output channel of every head apart, as the official code does. The convolutions
    compute in the type of x, the dense layer in float32 at least.

    Source: pSp `GradualStyleBlock`.
    """

    num_styles: int
    depth: int
    width: int = 512
    w_dim: int = 512

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B L D"]:
        batch = x.shape[0]
        columns = self.num_styles * self.width
        for i in range(self.depth):
            shape = (3, 3, x.shape[-1], columns)
            kernel = self.param(f"conv_{i}_kernel", HEAD_INIT, shape)
            bias = self.param(f"conv_{i}_bias", nn.initializers.zeros, (columns,))
            kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
            if i == 0:
                x = conv_general_dilated(
                    x,
                    kernel,
                    window_strides=(2, 2),
                    padding=[(1, 1), (1, 1)],
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
                x = x.reshape(*x.shape[:3], self.num_styles, self.width)
            else:
                x = _conv_per_head(x, kernel)
            x = jax.nn.leaky_relu(x + bias.reshape(self.num_styles, self.width), HEAD_SLOPE)
        if x.shape[1:3] != (1, 1):
            raise ValueError(
                f"style heads: {self.depth} convolutions end at {x.shape[1:3]}, expected (1, 1)"
            )
        x = x.reshape(batch, self.num_styles, self.width)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        columns = self.num_styles * self.w_dim
        kernel = self.param("dense_kernel", nn.initializers.normal(1.0), (self.width, columns))
        bias = self.param("dense_bias", nn.initializers.zeros, (columns,))
        kernel = kernel.reshape(self.width, self.num_styles, self.w_dim)
        x = einsum("blk,klo->blo", x, kernel / math.sqrt(self.width))
        return x + bias.reshape(self.num_styles, self.w_dim)


class StyleEncoder(nn.Module):
    """What all encoders have: a trunk whose maps feed style heads.

    `x [B, S, S, input_channels] -> delta [B, num_styles, w_dim]`, with x the image and the
    previous result side by side, both in [-1, 1] (6 channels), or the image alone (3). With
    `train=True` apply with `mutable=["batch_stats"]`. The defaults are the official encoder for
    1024 images; a side shorter than `input_size` is fine (cars: 192 x 256).

    Attributes:
      num_styles: L, the rows of `w_plus`.
      input_channels: channels of x.
      input_size: the longer side of x, which sets the depth of the heads.
      units: blocks in each stage of the trunk.
      widths: channels of the stem, then of each stage.
      head_width: channels inside a style head.
      w_dim: width of one latent row.
      dtype: type of the convolutions' arithmetic, e.g. bfloat16; None takes that of x.
      remat: compute the insides of the trunk's blocks again in the backward pass.
      local_batch_norm: `BatchNorm.local`.
    """

    num_styles: int = 18
    input_channels: int = 6
    input_size: int = 256
    units: Sequence[int] = (3, 4, 14, 3)
    widths: Sequence[int] = (64, 64, 128, 256, 512)
    head_width: int = 512
    w_dim: int = 512
    dtype: jnp.dtype | None = None
    remat: bool = False
    local_batch_norm: bool = False

    def make_trunk(self) -> nn.Module:
        """The network below the heads: [B, H, W, C] -> one map a stage."""
        return IRTrunk(self.units, self.widths, **self._trunk_options())

    def _trunk_options(self) -> dict[str, Any]:
        return {
            "remat": self.remat,
            "local_batch_norm": self.local_batch_norm,
            "name": "trunk",
        }

    def check_input(self, x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B H W C"]:
        """x [B, H, W, C] in the encoder's type of arithmetic.

        Raises:
          ValueError: x has other channels or another size than the encoder was built for.
        """
        size, channels = self.input_size, self.input_channels
        if x.ndim != 4 or x.shape[-1] != channels or max(x.shape[1:3]) != size:
            raise ValueError(
                f"encoder input: expected [B, {size}, {size}, {channels}], got {x.shape}"
            )
        return x if self.dtype is None else x.astype(self.dtype)

    def heads(self, count: int, *, scale: int = 0, name: str) -> StyleHeads:
        """`count` heads on the trunk's last map, or on a map `scale` times doubled."""
        depth = math.ceil(math.log2(self.input_size / 2 ** len(self.units))) + scale
        return StyleHeads(count, depth, self.head_width, self.w_dim, name=name)


class BackboneEncoder(StyleEncoder):
    """IR-SE trunk whose last map feeds every style head; ReStyle's and IntereStyle's encoder.

    Source: ReStyle `BackboneEncoder`.
    """

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> Float[jax.Array, "B L D"]:
        """See `StyleEncoder`; raises ValueError as `check_input`."""
        features = self.make_trunk()(self.check_input(x), train=train)[-1]
        return self.heads(self.num_styles, name="heads")(features)


class ResNetBackboneEncoder(BackboneEncoder):
    """`BackboneEncoder` over ResNet34, for everything but faces; same inputs and fields.

    Source: ReStyle `ResNetBackboneEncoder`.
    """

    units: Sequence[int] = (3, 4, 6, 3)

    def make_trunk(self) -> nn.Module:
        """See `StyleEncoder`."""
        return ResNetTrunk(self.units, self.widths, **self._trunk_options())


def _conv_per_head(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution, stride 2, one pixel of zeros around, each head with its own kernel.

    x [B, H, W, L, K], kernel [3, 3, K, L * O] -> [B, ceil(H/2), ceil(W/2), L, O]. Gathered patches
    and one batched product: grouped convolutions are slow on CPU.
    """
    batch, height, width, heads, channels = x.shape
    out_height, out_width = (height + 1) // 2, (width + 1) // 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
    taps = [
        x[:, i : i + 2 * out_height - 1 : 2, j : j + 2 * out_width - 1 : 2]
        for i in range(3)
        for j in range(3)
    ]
    patches = jnp.concatenate(taps, axis=-1)
    kernel = kernel.reshape(9 * channels, heads, -1)
    return einsum("bhwlk,klo->bhwlo", patches, kernel)
