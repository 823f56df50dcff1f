"""What a model's exported program is made from, and what its results are compared with."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.edits import apply_edits
from interestyle_jax.export.program import PARTS, Recipe
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.resize import crop_to_shape


def recipe_of(
    model: Model,
    what: str,
    num_iterations: int | None,
    *,
    directions: Sequence[Direction] = (),
) -> tuple[Recipe, dict[str, Any]]:
    """What `program.build` takes.

    Args:
      model: its networks, and their variables.
      what: of `program.WHATS`.
      num_iterations: N of "invert", as in `Model.invert`.
      directions: of "edit".

    Returns:
      The recipe and its variables.

    Raises:
      InputError: a part is missing.
    """
    if what == "invert":
        model.require_inversion()
        num_iterations = model.iterations(num_iterations)
    networks = [part for part in PARTS[what] if part != "w_avg"]
    for part in networks:
        model.network(part)
    architectures = {part: model.metadata["architectures"][part] for part in networks}
    shape = model.input_shape if "encoder" in networks else (0, 0)
    variables = {part: model.variables[part] for part in PARTS[what]}
    if what == "invert":
        # The same for all images.
        image_0 = model.synthesize(model.mean_latent())
        variables["image_0"] = crop_to_shape(image_0, shape)
    if directions:
        variables["directions"] = {str(i): d.array for i, d in enumerate(directions)}
    named = tuple((d.name, d.kind, d.rows) for d in directions)
    return Recipe(what, architectures, num_iterations or 1, shape, named), variables


def sample_inputs(
    model: Model, what: str, rows: int, *, directions: Sequence[Direction]
) -> list[Float[np.ndarray, "B ..."]]:
    """Random inputs of a program, to compare its results with the model's by.

    Args:
      model, what, directions: as of `recipe_of`.
      rows: B.

    Returns:
      [images [B, H, W, C] in [-1, 1]], or [latents [B, L, D]] and of "edit" strengths [B, E].
    """
    rng = np.random.default_rng(0)
    if what in ("synthesize", "edit"):
        spread = rng.normal(size=(rows, *model.latents_shape))
        mean = model.mean_latent(rows) if "w_avg" in model.variables else 0
        w_plus = np.asarray(spread + mean, np.float32)
        if what == "synthesize":
            return [w_plus]
        low, high = np.array([d.default_range or (-1, 1) for d in directions]).T
        strengths = rng.uniform(low, high, (rows, len(directions)))
        return [w_plus, strengths.astype(np.float32)]
    channels = 3 if what == "invert" else model.network("encoder").input_channels
    return [rng.uniform(-1, 1, (rows, *model.input_shape, channels)).astype(np.float32)]


def model_results(
    model: Model,
    what: str,
    values: Sequence[np.ndarray],
    num_iterations: int | None,
    *,
    directions: Sequence[Direction],
) -> dict[str, np.ndarray]:
    """What the model itself gives: {output of the program: array}.

    Args:
      model, what, num_iterations, directions: as of `recipe_of`.
      values: of `sample_inputs`.
    """
    if what == "invert":
        return jax.device_get(model.invert(values[0], num_iterations)._asdict())
    if what == "encode":
        return {"delta": jax.device_get(model.encode(values[0]))}
    if what == "synthesize":
        return {"images": jax.device_get(model.synthesize(values[0]))}
    w_plus, strengths = values
    edits = [direction.edit(model.style_layers) for direction in directions]
    edited = apply_edits(edits, jax.device_put(w_plus), list(strengths.T), styles=model.styles)
    if edited.styles is None:
        images = model.synthesize(edited.w_plus)
    else:
        images = model.synthesize_from_styles(edited.styles)
    return jax.device_get({"edited": edited.w_plus, "images": images})
