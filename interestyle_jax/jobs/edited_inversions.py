"""Edited inversions in `evaluate`: what an encoder's latents give when a direction moves them.

The editing FID of peers (StyleFeatureEditor, StyleRes): real images that have an attribute against
edited inversions of images that lack it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.edit_drawing import Drawing, edit_and_draw
from interestyle_jax.jobs.edits import outside_ranges, plan_edits, strength_label

_to_float = jax.jit(to_float)


@jax.jit
def _last(w_plus: jax.Array) -> jax.Array:
    return w_plus[-1]


class EditedInversions:
    """Edits of each encoder's latents, all at one strength.

    Attributes:
      labels: "NAME:STRENGTH" of each edit.
      outside: words about strengths outside of the range in which an edit is known to work.
      options: what results depend on, as JSON.
    """

    def __init__(
        self, models: Sequence[Model], edits: Sequence[str], *, other_generator: bool = False
    ):
        """Reads directions and checks them against the generators.

        Args:
          models: encoders with their generators.
          edits: in order, "NAME_OR_FILE[:STRENGTH]" as `edit --direction`; without a strength it is
            the upper end of the direction's range.
          other_generator: take directions that were made for another generator.

        Raises:
          InputError: as `plan_edits`, or an edit that has neither strength nor range.
        """
        self._given: list[tuple[Any, Any, Drawing]] = []
        for model in models:
            planned = plan_edits(model, edits, other_generator=other_generator)
            strengths = []
            for text, each in zip(edits, planned, strict=True):
                strength, known = each.strength, each.edit.default_range
                if strength is None and known is None:
                    raise InputError(f"--edit={text}: its strength is not known, expected {text}:2")
                strengths.append(float(known[1] if strength is None and known else strength or 0))
            given = tuple(each.edit for each in planned), tuple(map(np.float32, strengths))
            placed = jax.device_put(given, model.replicated_sharding)
            shape = model.input_shape
            self._given.append((*placed, Drawing(model.network("generator"), shape, shape)))
            pairs = list(zip(planned, strengths, strict=True))
            self.labels = [f"{each.edit.name}:{strength_label(s)}" for each, s in pairs]
            self.outside = outside_ranges(planned, [strengths])
            self.options = [each.facts | {"strength": s} for each, s in pairs]

    def draw(
        self, k: int, model: Model, w_plus: Float[jax.Array, "N B L D"]
    ) -> tuple[Float[jax.Array, "B h w 3"], jax.Array]:
        """Edited images of encoder k's last latents as measured [B, h, w, 3]; is_finite [B].

        Args:
          k: the encoder's number.
          model: it.
          w_plus: latents of each iteration.
        """
        edits, strengths, drawing = self._given[k]
        drawn = edit_and_draw(
            model.variables["generator"], edits, strengths, _last(w_plus), drawing=drawing
        )
        return _to_float(drawn["measured"]), drawn["is_finite"]
