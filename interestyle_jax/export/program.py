"""The function that an exported file holds, and what is needed to build it.

Also runs in the environment of the converter to ONNX, which has JAX, Flax and little else.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Float

from interestyle_jax.inversion.encoder_inversion import invert_images
from interestyle_jax.models import registry
from interestyle_jax.models.backend import built_for

WHATS = ("invert", "synthesize", "encode")
PARTS = {
    "invert": ("generator", "encoder", "w_avg"),
    "synthesize": ("generator",),
    "encode": ("encoder",),
}


class Recipe(NamedTuple):
    """What a program is made from, beside its variables; JSON-able.

    Attributes:
      what: "invert", "synthesize" or "encode".
      architectures: {part: architecture} of the networks.
      num_iterations: N of "invert".
      shape: height and width of the encoder's input; unused by "synthesize".
    """

    what: str
    architectures: dict[str, Any]
    num_iterations: int
    shape: tuple[int, int]


class Program(NamedTuple):
    """A function of one batch.

    Attributes:
      function: the input [B, *row] -> {name: array} of `outputs`.
      input_name: what its input is.
      row: shape of one row of the input.
      outputs: {name: axis of the batch}, in order.
    """

    function: Callable[[jax.Array], dict[str, jax.Array]]
    input_name: str
    row: tuple[int, ...]
    outputs: dict[str, int]


def build(recipe: Recipe, variables: Mapping[str, Any]) -> Program:
    """The program of a recipe, which holds the variables as constants.

    Args:
      recipe: what to build.
      variables: {part: variables} of `PARTS[recipe.what]`; "image_0" [1, R, R, 3], the first image
        of an iterative "invert", is computed in the program where it is not given.
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
        return Program(synthesize, "w_plus", row, {"images": 0})
    encoder = modules["encoder"]
    if recipe.what == "encode":

        def encode(x: Float[jax.Array, "B H W C"]) -> dict[str, jax.Array]:
            return {"delta": encoder.apply(variables["encoder"], x, train=False)}

        return Program(encode, "x", (*recipe.shape, encoder.input_channels), {"delta": 0})

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

    return Program(invert, "x", (*recipe.shape, 3), {"w_plus": 1, "images": 1})
