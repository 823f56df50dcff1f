"""pSp's encoder: style heads on three scales of a feature pyramid."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.corner_resize import resize_corners
from interestyle_jax.models.encoders import HEAD_INIT, StyleHeads, encoder_input
from interestyle_jax.models.ir_se import IRTrunk
from interestyle_jax.models.products import Conv


class GradualStyleEncoder(nn.Module):
    """Feature pyramid over an IR-SE trunk; pSp's encoder.

    `x [B, S, S, input_channels] -> delta [B, num_styles, w_dim]`, x an image in [-1, 1]. The last
    map of the trunk, brought to twice and four times its size and added to the maps of the two
    stages before, gives three scales: rows below `middle_start` read the coarsest, rows from
    `fine_start` the finest. With `train=True` apply with `mutable=["batch_stats"]`. The defaults
    are the official encoder for 1024 images.

    Attributes:
      num_styles: L, the rows of `w_plus`.
      input_channels: channels of x.
      input_size: the longer side of x, which sets the depth of the heads.
      units: blocks in each stage of the trunk, three stages at least.
      widths: channels of the stem, then of each stage; the last is the pyramid's width.
      head_width: channels inside a style head.
      w_dim: width of one latent row.
      middle_start: first row of the middle scale.
      fine_start: first row of the fine scale.
      dtype: type of the convolutions' arithmetic, e.g. bfloat16; None takes that of x.
      remat: compute the insides of the trunk's blocks again in the backward pass.

    Source: pSp `GradualStyleEncoder`.
    """

    num_styles: int = 18
    input_channels: int = 3
    input_size: int = 256
    units: Sequence[int] = (3, 4, 14, 3)
    widths: Sequence[int] = (64, 64, 128, 256, 512)
    head_width: int = 512
    w_dim: int = 512
    middle_start: int = 3
    fine_start: int = 7
    dtype: jnp.dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> Float[jax.Array, "B L D"]:
        """See the class.

        Raises:
          ValueError: x has other channels or another size than the encoder was built for.
        """
        x = encoder_input(self, x)
        *_, fine, middle, coarse = IRTrunk(self.units, self.widths, remat=self.remat, name="trunk")(
            x, train=train
        )
        middle = self._merge(coarse, middle, "lateral_middle")
        fine = self._merge(middle, fine, "lateral_fine")
        depth = math.ceil(math.log2(self.input_size / 2 ** len(self.units)))
        starts = (0, self.middle_start, self.fine_start, self.num_styles)
        rows = []
        for i, (name, features) in enumerate(
            (("coarse", coarse), ("middle", middle), ("fine", fine))
        ):
            count = min(starts[i + 1], self.num_styles) - starts[i]
            if count > 0:
                heads = StyleHeads(count, depth + i, self.head_width, self.w_dim, name=name)
                rows.append(heads(features))
        return jnp.concatenate(rows, axis=1)

    def _merge(self, above: jax.Array, own: jax.Array, name: str) -> jax.Array:
        """The coarser scale at this one's size, plus this stage's map at the pyramid's width."""
        lateral = Conv(self.widths[-1], (1, 1), kernel_init=HEAD_INIT, dtype=own.dtype, name=name)
        return resize_corners(above, *own.shape[1:3]) + lateral(own)
