"""The IR-SE trunk: improved residual blocks with squeeze-and-excitation.

Source: the `model_irse.py` / `helpers.py` that ArcFace, pSp, e4e, ReStyle and IntereStyle share.
IR-SE50 is `units=(3, 4, 14, 3)`, IR-101 is `(3, 13, 30, 3)` without squeeze-and-excitation. All 3x3
convolutions pad one pixel on every side, which is not XLA's "SAME" at stride 2. Everything computes
in the type of its input; means and BatchNorm in float32 at least.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.convolution import conv
from interestyle_jax.models.products import Dense
from interestyle_jax.models.rematerialise import run_block

SQUEEZE_REDUCTION = 16


class PReLU(nn.Module):
    """x where positive, slope * x elsewhere; one learned slope a channel of `x [..., C]`."""

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*B C"]) -> Float[jax.Array, "*B C"]:
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class SqueezeExcitation(nn.Module):
    """Scales each channel of `x [B, H, W, C]` by a gate in (0, 1) computed from its global mean."""

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B H W C"]:
        channels = x.shape[-1]
        gate = x.mean(axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        hidden = max(1, channels // SQUEEZE_REDUCTION)
        gate = nn.relu(Dense(hidden, use_bias=False, name="reduce")(gate))
        gate = nn.sigmoid(Dense(channels, use_bias=False, name="expand")(gate))
        return x * gate[:, None, None, :].astype(x.dtype)


class IRBlock(nn.Module):
    """Residual block `x [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), features]`.

    BatchNorm, 3x3 convolution, PReLU, 3x3 convolution (which carries the stride), BatchNorm, and
    squeeze-and-excitation where asked; no activation after the sum. The shortcut subsamples where
    the channel count stays, and is a strided 1x1 convolution with BatchNorm where it changes.
    """

    features: int
    stride: int = 1
    squeeze_excitation: bool = True
    local_batch_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> Float[jax.Array, "B h w O"]:
        local = self.local_batch_norm
        y = BatchNorm(local=local, name="norm_1")(x, train=train)
        y = conv(self.features, 3, 1, "conv_1", y.dtype)(y)
        y = PReLU(name="prelu")(y)
        y = conv(self.features, 3, self.stride, "conv_2", y.dtype)(y)
        y = BatchNorm(local=local, name="norm_2")(y, train=train)
        if self.squeeze_excitation:
            y = SqueezeExcitation(name="squeeze_excitation")(y)
        if x.shape[-1] == self.features:
            shortcut = x[:, :: self.stride, :: self.stride]
        else:
            shortcut = conv(self.features, 1, self.stride, "shortcut_conv", x.dtype)(x)
            shortcut = BatchNorm(local=local, name="shortcut_norm")(shortcut, train=train)
        return y + shortcut


def stages(units: Sequence[int], widths: Sequence[int]) -> list[tuple[int, int]]:
    """(blocks, channels) of each stage; `widths` begins with the stem's.

    Raises:
      ValueError: the numbers of `units` and `widths` do not fit.
    """
    if len(widths) != len(units) + 1:
        raise ValueError(
            f"widths: expected {len(units) + 1} (the stem's, then one a stage), got {len(widths)}"
        )
    return list(zip(units, widths[1:], strict=True))


class IRTrunk(nn.Module):
    """Stem and stages of IR blocks: `x [B, H, W, C] -> one feature map a stage`.

    The stem keeps the size; the first block of every stage halves it, so the map of stage s (from
    one) is [B, H / 2**s, W / 2**s, widths[s]]. Blocks are named `block_0`, `block_1`, ... through
    all stages, like the official `body`.

    Attributes:
      units: blocks in each stage.
      widths: channels of the stem, then of each stage; one more than `units`.
      squeeze_excitation: IR-SE where true, plain IR where false.
      remat: compute the insides of blocks again in the backward pass.
      local_batch_norm: `BatchNorm.local`.
    """

    units: Sequence[int] = (3, 4, 14, 3)
    widths: Sequence[int] = (64, 64, 128, 256, 512)
    squeeze_excitation: bool = True
    remat: bool = False
    local_batch_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> list[Float[jax.Array, "B _ _ _"]]:
        """See the class.

        Raises:
          ValueError: the numbers of `units` and `widths` do not fit.
        """
        plan = stages(self.units, self.widths)
        x = conv(self.widths[0], 3, 1, "stem_conv", x.dtype)(x)
        x = BatchNorm(local=self.local_batch_norm, name="stem_norm")(x, train=train)
        x = PReLU(name="stem_prelu")(x)
        maps, block = [], 0
        for count, width in plan:
            for unit in range(count):
                stride = 2 if unit == 0 else 1
                module = IRBlock(
                    width,
                    stride,
                    self.squeeze_excitation,
                    self.local_batch_norm,
                    name=f"block_{block}",
                )
                x = run_block(module, x, remat=self.remat, train=train)
                block += 1
            maps.append(x)
        return maps
