"""e4e's encoders: one latent for all rows, and a change of each row that training adds in stages.

Source: e4e `psp_encoders.py` `Encoder4Editing`; ReStyle `restyle_e4e_encoders.py`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder

# Of a pass: an int, an int32 scalar where a step is compiled once for all stages, or None for all.
Stage = int | jax.Array | None


def progressive_rows(heads: Float[jax.Array, "B L D"], stage: Stage) -> Float[jax.Array, "B L D"]:
    """Row 0 of the heads in every row, plus each further head in its own row up to `stage`.

    Args:
      heads: [B, L, D], what the style heads give.
      stage: rows 1 ... stage get their own change; 0 leaves all rows equal, None takes them all.

    Returns:
      [B, L, D].

    Raises:
      ValueError: stage is negative.
    """
    if isinstance(stage, int) and stage < 0:
        raise ValueError(f"stage: expected 0 or more, or None, got {stage}")
    row = np.arange(heads.shape[1])[:, None]
    active = (row > 0) & (row <= (len(row) if stage is None else stage))
    return heads[:, :1] + jnp.where(active, heads, 0)


class ProgressiveRows(nn.Module):
    """Over an encoder, by inheritance: its heads as progressive rows; same inputs and fields.

    `stage` as in `progressive_rows`; it is not part of a checkpoint.
    """

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False, stage: Stage = None
    ) -> Float[jax.Array, "B L D"]:
        """See `StyleEncoder`; raises ValueError as `check_input` and `progressive_rows`."""
        return progressive_rows(super().__call__(x, train=train), stage)


class ProgressiveBackboneEncoder(ProgressiveRows, BackboneEncoder):
    """ReStyle's encoder over e4e."""


class ResNetProgressiveBackboneEncoder(ProgressiveRows, ResNetBackboneEncoder):
    """ReStyle's encoder over e4e for everything but faces."""


class Encoder4Editing(ProgressiveRows, GradualStyleEncoder):
    """e4e's encoder."""


PROGRESSIVE = (ProgressiveBackboneEncoder, ResNetProgressiveBackboneEncoder, Encoder4Editing)


def silence_rows(encoder: nn.Module, params: dict[str, Any], stage: int) -> dict[str, Any]:
    """Parameters with which the encoder, called without a stage, gives what it gives at `stage`.

    Args:
      encoder: one of `PROGRESSIVE`.
      params: its parameters, as arrays.
      stage: the last layers of the heads of rows above it become 0.

    Returns:
      New parameters of the same shapes.
    """
    if isinstance(encoder, Encoder4Editing):
        first_rows = {"coarse": 0, "middle": encoder.middle_start, "fine": encoder.fine_start}
    else:
        first_rows = {"heads": 0}
    silenced = dict(params)
    for name, first in first_rows.items():
        if name not in params:
            continue
        group = dict(params[name])
        rows = first + np.arange(group["dense_bias"].shape[0]) // encoder.w_dim
        keep = (rows == 0) | (rows <= stage)
        for leaf in ("dense_kernel", "dense_bias"):
            group[leaf] = group[leaf] * keep
        silenced[name] = group
    return silenced
