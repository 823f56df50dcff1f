"""pSp's encoder: style heads on three scales of a feature pyramid."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.corner_resize import resize_corners
from interestyle_jax.models.encoders import HEAD_INIT, StyleEncoder
from interestyle_jax.models.products import Conv


class GradualStyleEncoder(StyleEncoder):
    """Feature pyramid over an IR-SE trunk; pSp's encoder, which sees the image alone.

    The last map of the trunk, brought to twice and four times its size and added to the maps of
    the two stages before, gives three scales: rows below `middle_start` read the coarsest, rows
    from `fine_start` the finest. The trunk has three stages at least; the width of the last is the
    pyramid's.

    Attributes:
      middle_start: first row of the middle scale.
      fine_start: first row of the fine scale.

    Source: pSp `GradualStyleEncoder`.
    """

    input_channels: int = 3
    middle_start: int = 3
    fine_start: int = 7

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> Float[jax.Array, "B L D"]:
        """See `StyleEncoder`; raises ValueError as `check_input`."""
        *_, fine, middle, coarse = self.make_trunk()(self.check_input(x), train=train)
        middle = self._merge(coarse, middle, "lateral_middle")
        fine = self._merge(middle, fine, "lateral_fine")
        starts = (0, self.middle_start, self.fine_start, self.num_styles)
        rows = []
        for i, (name, features) in enumerate(
            (("coarse", coarse), ("middle", middle), ("fine", fine))
        ):
            count = min(starts[i + 1], self.num_styles) - starts[i]
            if count > 0:
                rows.append(self.heads(count, scale=i, name=name)(features))
        return jnp.concatenate(rows, axis=1)

    def _merge(self, above: jax.Array, own: jax.Array, name: str) -> jax.Array:
        """The coarser scale at this one's size, plus this stage's map at the pyramid's width."""
        lateral = Conv(self.widths[-1], (1, 1), kernel_init=HEAD_INIT, dtype=own.dtype, name=name)
        return resize_corners(above, *own.shape[1:3]) + lateral(own)
