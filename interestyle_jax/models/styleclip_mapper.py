"""StyleCLIP's mappers: a latent to the change that a text asks for.

Source: StyleCLIP (Patashnik, Wu et al. 2021) section 5; `mapper/latent_mappers.py`. The edit is
w + 0.1 mapper(w); the factor is outside.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.equalized import EqualDense

LEVELS = ("coarse", "medium", "fine")
# Rows of a `w_plus` where the medium and the fine level begin.
MEDIUM_START, FINE_START = 4, 8
# "single" is one mapping for all rows.
SINGLE = "single"


class MapperLevel(nn.Module):
    """`x [B, *R, D] -> [B, *R, D]`: pixel norm along axis 1, then four dense layers.

    Of a W+ that axis are the rows (as in the official code, whose pixel norm was made for [B, D]),
    of a style [B, C] the channels.
    """

    depth: int = 4

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B *R D"]) -> Float[jax.Array, "B *R D"]:
        width = x.shape[-1]
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=1, keepdims=True) + 1e-8)
        for i in range(self.depth):
            x = EqualDense(width, 0.01, activation=True, name=f"dense_{i}")(x)
        return x


class StyleMapper(nn.Module):
    """`w_plus [B, L, D] -> change [B, L, D]`; rows of levels that are off stay 0.

    Attributes:
      num_styles: L.
      w_dim: D.
      levels: those that are on, some of `LEVELS`, or ("single",).
    """

    num_styles: int = 18
    w_dim: int = 512
    levels: Sequence[str] = LEVELS

    @nn.compact
    def __call__(self, w_plus: Float[jax.Array, "B L D"]) -> Float[jax.Array, "B L D"]:
        """See the class.

        Raises:
          ValueError: latents of another shape, or levels that are unknown.
        """
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.num_styles, self.w_dim):
            raise ValueError(
                f"w_plus: expected [B, {self.num_styles}, {self.w_dim}], got {w_plus.shape}"
            )
        if tuple(self.levels) == (SINGLE,):
            return MapperLevel(name=SINGLE)(w_plus)
        if not self.levels or not set(self.levels) <= {*LEVELS}:
            raise ValueError(f"levels: expected some of {', '.join(LEVELS)}, got {self.levels}")
        parts = []
        for level, (start, stop) in level_rows(self.num_styles).items():
            rows = w_plus[:, start:stop]
            is_on = level in self.levels
            parts.append(MapperLevel(name=level)(rows) if is_on else jnp.zeros_like(rows))
        return jnp.concatenate(parts, axis=1)


def level_rows(num_styles: int) -> dict[str, tuple[int, int]]:
    """{level: (first row, row after its last)} of a `w_plus` of `num_styles` rows."""
    starts = (0, MEDIUM_START, FINE_START, num_styles)
    return {
        level: (min(start, num_styles), min(stop, num_styles))
        for level, start, stop in zip(LEVELS, starts, starts[1:], strict=False)
        if start < num_styles
    }


class StyleSpaceMapper(nn.Module):
    """Styles of all layers, [B, C] each, to their changes; ToRGB layers stay as they are.

    Attributes:
      channels: C of every layer in the order of execution (`Generator.style_layers`).
      mapped: numbers of the layers that are changed, those that are no ToRGB.
    """

    channels: Sequence[int]
    mapped: Sequence[int]

    @nn.compact
    def __call__(
        self, styles: Sequence[Float[jax.Array, "B _"]]
    ) -> tuple[Float[jax.Array, "B _"], ...]:
        """See the class.

        Raises:
          ValueError: styles of other shapes, [B, C].
        """
        found = [style.shape[1:] for style in styles]
        if found != [(count,) for count in self.channels]:
            raise ValueError(f"styles: expected [B, C] with C = {self.channels}, got {found}")
        return tuple(
            MapperLevel(name=f"layer_{i}")(style) if i in self.mapped else jnp.zeros_like(style)
            for i, style in enumerate(styles)
        )
