"""How `edit` and `mix` draw: a batch by one generator, or each image by its own."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from interestyle_jax.data.pixels import to_uint8
from interestyle_jax.editing.edits import Edit, apply_edits
from interestyle_jax.editing.style_space import join_styles
from interestyle_jax.inversion.generator_differences import add_difference
from interestyle_jax.inversion.resize import crop_to_shape, resize_saved
from interestyle_jax.parallel.sharding import AXES


class Drawing(NamedTuple):
    """How images are drawn: the generator, what encoders crop, the size that is measured."""

    generator: Any
    crop: tuple[int, int] | None
    measured: tuple[int, int] | None


@functools.partial(jax.jit, static_argnames="drawing")
def edit_and_draw(
    variables: Any,
    edits: tuple[Edit, ...],
    strengths: Any,
    w_plus: Float[jax.Array, "B L D"],
    *,
    drawing: Drawing,
) -> dict[str, Any]:
    """Rows first: images [B, H, W, 3] as uint8, w_plus, is_finite, and what else is saved."""
    generator = drawing.generator

    def styles_of(w_plus):
        return generator.apply(variables, w_plus, method="styles")

    edited = apply_edits(edits, w_plus, strengths, styles=styles_of)
    result = {"w_plus": edited.w_plus}
    if edited.styles is None:
        images = generator.apply(variables, edited.w_plus, "const", method="synthesize")
    else:
        images = generator.apply(variables, edited.styles, "const", method="synthesize_from_styles")
        result["styles"] = join_styles(edited.styles, generator.style_layers)
    if drawing.crop is not None:
        images = crop_to_shape(images, drawing.crop)
    finite = jnp.isfinite(images).all((1, 2, 3)) & jnp.isfinite(edited.w_plus).all((1, 2))
    result |= {"image": to_uint8(images), "is_finite": finite}
    if drawing.measured is not None:
        result["measured"] = resize_saved(result["image"], drawing.measured)
    return result


@functools.partial(jax.jit, static_argnames=("drawing", "mesh"))
def draw_each(
    variables: Any,
    changes: Any,
    edits: tuple[Edit, ...],
    strengths: Any,
    w_plus: Float[jax.Array, "B L D"],
    *,
    drawing: Drawing,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """As `edit_and_draw`, each image by the generator plus its own difference.

    Args:
      variables: of the generator.
      changes: [B, ...] by path, see `inversion.generator_differences`.
      edits, strengths, w_plus, drawing: as there, [B, L, D].
      mesh: devices that share the rows, or None.
    """

    def each(variables, changes, edits, strengths, w_plus):
        def one(row):
            change, latent = row
            own = add_difference(variables, change)
            result = edit_and_draw(own, edits, strengths, latent[None], drawing=drawing)
            return jax.tree.map(lambda x: x[0], result)

        # One after the other: generators of 1024 pixels take 120 MB each.
        return jax.lax.map(one, (changes, w_plus))

    if mesh is not None:
        own, all_ = PartitionSpec(AXES), PartitionSpec()
        each = jax.shard_map(
            each,
            mesh=mesh,
            in_specs=(all_, own, all_, all_, own),
            out_specs=own,
            check_vma=False,
        )
    return each(variables, changes, edits, strengths, w_plus)


@jax.jit
def stack(columns: list[Any]) -> Any:
    """Columns behind rows: [B, ...] each -> [B, S, ...]."""
    return jax.tree.map(lambda *parts: jnp.stack(parts, axis=1), *columns)
