"""What an encoder's training starts from: nothing, a trunk trained for another task, an encoder.

Source: the official `psp.py` (`load_weights`, `__get_encoder_checkpoint`).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PRNGKeyArray

from interestyle_jax.errors import InputError
from interestyle_jax.weights import Weights, load_weights, resolve_weights

PyTree = Any
TREES = ("params", "batch_stats")
STEM = ("params", "trunk", "stem_conv", "kernel")
# torchvision's ResNet has a ReLU where the encoders' stem has a PReLU.
NOT_IN_TRUNKS = ("params", "trunk", "stem_prelu")


def read_initial(trunk: str | Path, encoder: str | Path, shapes: PyTree) -> dict[str, PyTree]:
    """Reads what `config.weights.trunk` and `.encoder` name, "" for neither.

    Args:
      trunk: weights with an `embedder` (ArcFace) or `trunk` (ResNet34) whose trunk is this
        encoder's; their first convolution may have fewer input channels.
      encoder: weights with an encoder of the same architecture, to resume from.
      shapes: the encoder's variables, {"params": ..., "batch_stats": ...} of anything with a shape.

    Returns:
      {"trunk": variables}, {"encoder": variables} or {}, for `apply_initial`.

    Raises:
      InputError: both are given, no such weights, or weights that do not fit; lists what does not.
    """
    if trunk and encoder:
        raise InputError("config.weights: expected trunk or encoder, got both")
    if not (trunk or encoder):
        return {}
    name = "trunk" if trunk else "encoder"
    weights = load_weights(resolve_weights(trunk or encoder))
    where = f"config.weights.{name}: {weights.directory}"
    found = _trunk(weights, where) if trunk else weights.part("encoder")[1]
    given = flatten_dict({tree: found[tree] for tree in TREES})
    wanted = flatten_dict({tree: shapes[tree] for tree in TREES})
    if trunk:
        wanted = {
            path: spec
            for path, spec in wanted.items()
            if path[1] == "trunk" and (path in given or path[:3] != NOT_IN_TRUNKS)
        }
    wrong = [f"no {'/'.join(path)}" for path in wanted.keys() - given.keys()]
    wrong += [f"unknown {'/'.join(path)}" for path in given.keys() - wanted.keys()]
    for path in given.keys() & wanted.keys():
        shape, expected = given[path].shape, wanted[path].shape
        if trunk and path == STEM and shape[2] <= expected[2]:
            expected = (*expected[:2], shape[2], *expected[3:])
        if shape != expected:
            wrong.append(f"{'/'.join(path)} is {list(shape)}, expected {list(expected)}")
    if wrong:
        raise InputError(f"{where} does not fit this encoder: {'; '.join(sorted(wrong))}")
    return {name: unflatten_dict({path: given[path] for path in wanted})}


def _trunk(weights: Weights, where: str) -> PyTree:
    """A trunk's variables, under "trunk" in each tree."""
    for part in ("embedder", "trunk"):
        if part in weights.variables:
            variables = weights.variables[part]
            if part == "trunk":
                return {tree: {"trunk": variables[tree]} for tree in TREES}
            if all("trunk" in variables.get(tree, {}) for tree in TREES):
                return {tree: {"trunk": variables[tree]["trunk"]} for tree in TREES}
    raise InputError(f"{where} holds no trunk (it has {', '.join(weights.variables)})")


def apply_initial(key: PRNGKeyArray, fresh: PyTree, initial: dict[str, PyTree]) -> PyTree:
    """Freshly initialised variables with `read_initial`'s in their places. Pure.

    Input channels of the first convolution that a trunk has no weights for (the fed-back image)
    are drawn from a standard normal distribution, as the official code does.
    """
    if "encoder" in initial:
        return jax.tree.map(jnp.asarray, initial["encoder"])
    if "trunk" not in initial:
        return fresh
    flat = flatten_dict(fresh)
    for path, value in flatten_dict(initial["trunk"]).items():
        if path == STEM and value.shape != flat[path].shape:
            drawn = jax.random.normal(key, flat[path].shape)
            value = drawn.at[:, :, : value.shape[2]].set(value)
        flat[path] = jnp.asarray(value, flat[path].dtype)
    return unflatten_dict(flat)
