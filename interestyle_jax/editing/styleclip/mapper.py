"""A trained mapper as an edit: w + strength mapper(w); StyleCLIP's strength is 0.1."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from interestyle_jax.editing.edits import Edit, num_rows
from interestyle_jax.errors import InputError
from interestyle_jax.models.styleclip_mapper import StyleMapper, StyleSpaceMapper
from interestyle_jax.models.stylegan2 import StyleLayer
from interestyle_jax.weights import load_weights, resolve_weights

PART = "mapper"
STRENGTH = 0.1
RANGE = (0.0, 0.18)


def load_mapper(name_or_dir: str | Path, layers: Sequence[StyleLayer], *, w_dim: int) -> Edit:
    """The edit of a mapper's weight directory.

    Args:
      name_or_dir: what the converter or a training of a mapper wrote.
      layers: `style_layers` of the generator whose latents are edited.
      w_dim: width of its `w`.

    Raises:
      InputError: no mapper there, or one for another generator.
    """
    weights = load_weights(resolve_weights(name_or_dir))
    mapper, variables = weights.part(PART)
    if isinstance(mapper, StyleSpaceMapper):
        found: Any = tuple(mapper.channels)
        expected: Any = tuple(layer.channels for layer in layers)
        what = "styles of"
    else:
        found, expected = (mapper.num_styles, mapper.w_dim), (num_rows(layers), w_dim)
        what = "rows and width"
    if found != expected:
        raise InputError(
            f"{weights.directory}: the mapper is for another generator, {what} {found}, "
            f"this one has {expected}"
        )
    space = "style" if isinstance(mapper, StyleSpaceMapper) else "w_plus"
    name = weights.metadata["extra"].get("text") or weights.directory.name
    return Edit(jax.device_put(variables), _applied(mapper), space, str(name), default_range=RANGE)


@functools.cache
def _applied(mapper: StyleMapper | StyleSpaceMapper) -> Callable[[Any, Any, Any], Any]:
    """One function a module, so that programs of edits are compiled once."""

    def apply(variables, latents, strength):
        changes = mapper.apply(variables, latents)
        return jax.tree.map(lambda x, change: x + strength * change, latents, changes)

    return apply
