"""What an edit is: a pure function of latents and a strength, and how several follow each other."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.models.stylegan2 import StyleLayer

# w_plus [B, L, D], or the styles of all layers, [B, C] each.
Latents = Any
SPACES = ("w_plus", "style")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
    """`edit(latents, strength) -> latents` of the same shapes; strength 0 leaves them as they are.

    A pytree, whose arrays are `variables`: give it to a jitted function as an argument.

    Attributes:
      variables: arrays that `apply` takes, any pytree: a direction, the variables of a mapper.
      apply: `(variables, latents, strength) -> latents`, pure and traceable; a function of a
        module, not a new one for every edit, so that nothing is compiled twice. `strength` comes
        as a scalar, or [B] for one a sample, already shaped to multiply `latents`.
      space: "w_plus" (latents are [B, L, D]) or "style" (a tuple of [B, C], see `style_space`).
      name: for labels and messages.
      changed: one bool a row of `w_plus`, or a layer of S space: those that may change, the others
        stay; None for all.
      default_range: strengths from low to high in which the edit is known to work; None: unknown.
    """

    variables: Any
    apply: Callable[[Any, Latents, Any], Latents] = dataclasses.field(metadata={"static": True})
    space: str = dataclasses.field(metadata={"static": True})
    name: str = dataclasses.field(metadata={"static": True})
    changed: tuple[bool, ...] | None = dataclasses.field(default=None, metadata={"static": True})
    default_range: tuple[float, float] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )

    def __call__(self, latents: Latents, strength: Float[jax.Array, "*B"] | float) -> Latents:
        """Latents edited.

        Args:
          latents: [B, L, D], or a tuple of [B, C], as `space` says.
          strength: scalar, or [B].
        """
        strength = jnp.asarray(strength, jnp.float32)
        rank = 3 if self.space == "w_plus" else 2
        shaped = strength.reshape(strength.shape + (1,) * (rank - 1) if strength.ndim else ())
        edited = self.apply(self.variables, latents, shaped)
        if self.changed is None:
            return edited
        if self.space == "w_plus":
            return jnp.where(np.array(self.changed)[:, None], edited, latents)
        pairs = zip(self.changed, edited, latents, strict=True)
        return tuple(new if changed else old for changed, new, old in pairs)

    def on_rows(self, rows: Sequence[int], layers: Sequence[StyleLayer]) -> "Edit":
        """This edit on some rows of `w_plus` alone; in S space on the layers that read them.

        Args:
          rows: numbers of rows, from 0.
          layers: `Generator.style_layers`.

        Raises:
          InputError: a row that the generator does not have, or no row.
        """
        check_rows(rows, layers)
        if self.space == "w_plus":
            changed = [row in rows for row in range(num_rows(layers))]
        else:
            changed = [layer.row in rows for layer in layers]
        if self.changed is not None:
            changed = [a and b for a, b in zip(changed, self.changed, strict=True)]
        return dataclasses.replace(self, changed=tuple(changed))


class Edited(NamedTuple):
    """Edited latents.

    Attributes:
      w_plus: [B, L, D], after the edits of W+.
      styles: [B, C] a layer, after the edits of S; None where there are none.
    """

    w_plus: jax.Array
    styles: tuple[jax.Array, ...] | None


def apply_edits(
    edits: Sequence[Edit],
    w_plus: Float[jax.Array, "B L D"],
    strengths: Sequence[Float[jax.Array, "*B"] | float],
    *,
    styles: Callable[[jax.Array], tuple[jax.Array, ...]],
) -> Edited:
    """Applies edits in order: those of W+ first, then, on the styles of the result, those of S.

    Args:
      edits: any number; S lies behind W+, so an edit of S never comes before one of W+.
      w_plus: [B, L, D].
      strengths: one an edit, scalars or [B].
      styles: w_plus -> styles, as `Model.styles`.
    """
    pairs = list(zip(edits, strengths, strict=True))
    for edit, strength in pairs:
        if edit.space == "w_plus":
            w_plus = edit(w_plus, strength)
    if all(edit.space == "w_plus" for edit in edits):
        return Edited(w_plus, None)
    found = styles(w_plus)
    for edit, strength in pairs:
        if edit.space == "style":
            found = edit(found, strength)
    return Edited(w_plus, found)


def num_rows(layers: Sequence[StyleLayer]) -> int:
    """L of the generator with these `style_layers`."""
    return 1 + max(layer.row for layer in layers)


def check_rows(rows: Sequence[int], layers: Sequence[StyleLayer]) -> None:
    """Raises InputError for no rows, or rows that the generator does not have."""
    last = num_rows(layers) - 1
    wrong = [row for row in rows if not 0 <= row <= last]
    if wrong:
        raise InputError(f"row {wrong[0]}: this generator has the rows 0 to {last}")
    if not rows:
        raise InputError("rows: none, expected at least one")
