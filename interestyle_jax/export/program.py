"""The function that an exported file holds, and what is needed to build it.

Also runs in the environment of the converter to ONNX, which has JAX, Flax and little else.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.edits import apply_edits
from interestyle_jax.inversion.encoder_inversion import invert_images
from interestyle_jax.models import registry
from interestyle_jax.models.backend import built_for

WHATS = ("invert", "synthesize", "encode", "edit")
PARTS = {
    "invert": ("generator", "encoder", "w_avg"),
    "synthesize": ("generator",),
    "encode": ("encoder",),
    "edit": ("generator",),
}


class Recipe(NamedTuple):
    """What a program is made from, beside its variables; JSON-able.

    Attributes:
      what: one of WHATS.
      architectures: {part: architecture} of the networks.
      num_iterations: N of "invert".
      shape: height and width of the encoder's input; of "invert" and "encode".
      directions: (name, kind, rows or None) of those of "edit", whose arrays are variables.
    """

    what: str
    architectures: dict[str, Any]
    num_iterations: int
    shape: tuple[int, int]
    directions: tuple[tuple[str, str, tuple[int, ...] | None], ...] = ()


class Program(NamedTuple):
    """A function of one batch.

    Attributes:
      function: the inputs, [B, *row] each -> {name: array} of `outputs`.
      inputs: {name: shape of one row}, in order.
      outputs: {name: axis of the batch}, in order.
    """

    function: Callable[..., dict[str, jax.Array]]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, int]


def build(recipe: Recipe, variables: Mapping[str, Any]) -> Program:
    """The program of a recipe, which holds the variables as constants.

    Args:
      recipe: what to build.
      variables: {part: variables} of `PARTS[recipe.what]`; "image_0" [1, R, R, 3], the first image
        of an iterative "invert", is computed in the program where it is not given; "directions"
        {"0": array, ...} of "edit".
    """
    # One file for all backends, whichever this process has.
    with built_for("cpu"):
        modules = {part: registry.build(a) for part, a in recipe.architectures.items()}
    if recipe.what == "synthesize":
        generator = modules["generator"]

        def synthesize(w_plus: Float[jax.Array, "B L D"]) -> dict[str, jax.Array]:
            images = generator.apply(variables["generator"], w_plus, "const", method="synthesize")
            return {"images": images}

        row = (generator.num_styles, generator.w_dim)
        return Program(synthesize, {"w_plus": row}, {"images": 0})
    if recipe.what == "edit":
        return _edit_program(recipe, variables, modules["generator"])
    encoder = modules["encoder"]
    if recipe.what == "encode":

        def encode(x: Float[jax.Array, "B H W C"]) -> dict[str, jax.Array]:
            return {"delta": encoder.apply(variables["encoder"], x, train=False)}

        pixel = encoder.input_channels
        return Program(encode, {"x": (*recipe.shape, pixel)}, {"delta": 0})

    def invert(x: Float[jax.Array, "B H W 3"]) -> dict[str, jax.Array]:
        inversion = invert_images(
            variables,
            x,
            generator=modules["generator"],
            encoder=encoder,
            num_iterations=recipe.num_iterations,
            shape=recipe.shape,
            return_images="all",
            # One body for all iterations: the weights are stored once.
            loop="scan",
            image_0=variables.get("image_0"),
        )
        return inversion._asdict()

    return Program(invert, {"x": (*recipe.shape, 3)}, {"w_plus": 1, "images": 1})


def _edit_program(recipe: Recipe, variables: Mapping[str, Any], generator: Any) -> Program:
    edits = [
        Direction(name, kind, np.asarray(variables["directions"][str(i)]), rows).edit(
            generator.style_layers
        )
        for i, (name, kind, rows) in enumerate(recipe.directions)
    ]

    def apply(method: str, *arguments: Any) -> Any:
        return generator.apply(variables["generator"], *arguments, method=method)

    def edit(
        w_plus: Float[jax.Array, "B L D"], strengths: Float[jax.Array, "B E"]
    ) -> dict[str, jax.Array]:
        columns = [strengths[:, i] for i in range(len(edits))]
        edited = apply_edits(edits, w_plus, columns, styles=lambda w: apply("styles", w))
        if edited.styles is None:
            images = apply("synthesize", edited.w_plus, "const")
        else:
            images = apply("synthesize_from_styles", edited.styles, "const")
        # ONNX has no output that is an input, which it is where all directions are in S.
        return {"edited": jnp.copy(edited.w_plus), "images": images}

    inputs = {"w_plus": (generator.num_styles, generator.w_dim), "strengths": (len(edits),)}
    return Program(edit, inputs, {"edited": 0, "images": 0})
