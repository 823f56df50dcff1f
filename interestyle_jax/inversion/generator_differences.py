"""Generators of single images: their differences from a generator, in safetensors files.

Pivotal tuning gives every image weights of its own, projectors give it noise maps. A file holds the
difference of each array that differs, under its path ("params/conv_4/bias"), and the fingerprint
of the generator that it is added to.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.models.stylegan2 import StyleLayer

DTYPES = ("float16", "float32")
ENDING = ".safetensors"
FOLDER = "tuned"
_GENERATOR = "generator"

# {path of an array: its difference}.
Difference = dict[str, np.ndarray]


def difference(variables: Mapping[str, Any], *, params: Any, noise: Any, dtype: str) -> Difference:
    """The difference of a generator, to be stored.

    Args:
      variables: {"params", "noise"} of the generator that it is added to.
      params: weights that an image has of its own, or None.
      noise: its noise maps, [h, w, 1] each, or None.
      dtype: "float16" or "float32".
    """
    found = {}
    for collection, own in (("params", params), ("noise", noise)):
        for path, array in flatten_dict(own or {}, sep="/").items():
            whole = flatten_dict(variables[collection], sep="/")[path]
            change = np.asarray(array, np.float32) - np.asarray(whole, np.float32)
            found[f"{collection}/{path}"] = change.reshape(np.shape(whole)).astype(dtype)
    return found


def num_bytes(variables: Mapping[str, Any], *, params: bool, noise: bool, dtype: str) -> int:
    """Of a file of `difference`, about."""
    sizes = [
        np.prod(np.shape(array), dtype=int)
        for path, array in flatten_dict(dict(variables), sep="/").items()
        if _may_differ(path) and (params if path.startswith("params/") else noise)
    ]
    # A header has about 100 bytes an array.
    return int(sum(sizes)) * np.dtype(dtype).itemsize + 100 * len(sizes)


def to_bytes(change: Difference, *, generator: str) -> bytes:
    """The content of a file; `generator` is the fingerprint of what is added to."""
    return safetensors.numpy.save(
        {path: np.ascontiguousarray(array).reshape(array.shape) for path, array in change.items()},
        # One entry: several have another order, and so other bytes, in every process.
        {_GENERATOR: generator},
    )


def read_difference(
    path: Path, variables: Mapping[str, Any], *, generator: str | None
) -> Difference:
    """Reads a file; nothing in it is run.

    Args:
      path: the file.
      variables: of the generator, whose shapes it must have.
      generator: its fingerprint, or None to take one of another generator.

    Raises:
      InputError: no such file, a damaged one, another generator's, or arrays that do not fit.
    """
    try:
        with safe_open(path, "np") as file:
            made_for = (file.metadata() or {}).get(_GENERATOR)
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise file_error(error, f"{path}: no readable generator difference") from error
    if generator is not None and made_for != generator:
        raise InputError(
            f"{path}: was made with generator {made_for}, these weights hold {generator}; "
            "expected the weights that were given to `interestyle invert`"
        )
    known = {k: np.shape(v) for k, v in flatten_dict(dict(variables), sep="/").items()}
    for name, array in found.items():
        if not _may_differ(name) or known.get(name) != array.shape:
            raise InputError(f"{path}: {name} {list(array.shape)} does not fit the generator")
        if array.dtype.name not in DTYPES or not np.isfinite(array).all():
            raise InputError(f"{path}: {name} is {array.dtype}, expected finite {DTYPES}")
    if not found:
        raise InputError(f"{path}: holds no difference")
    return found


def find_difference(folder: str | os.PathLike, name: str) -> Path:
    """The file of an image in an output folder of `invert`, or in its folder "tuned".

    Raises:
      InputError: there is none.
    """
    folder = Path(folder)
    for place in (folder / FOLDER, folder):
        if (place / f"{name}{ENDING}").is_file():
            return place / f"{name}{ENDING}"
    raise InputError(f"--tuned={folder}: has no {name}{ENDING}, neither in its folder '{FOLDER}'")


def add_difference(
    variables: Mapping[str, Any], change: Mapping[str, jax.Array | np.ndarray]
) -> dict[str, Any]:
    """The generator's variables with a difference added, in float32. Pure."""
    flat = flatten_dict(dict(variables), sep="/")
    for path, array in change.items():
        flat[path] = flat[path] + jnp.asarray(array, jnp.float32)
    return unflatten_dict(flat, sep="/")


def mix_differences(
    content: Difference,
    style: Difference,
    share: float,
    rows: frozenset[int],
    layers: tuple[StyleLayer, ...],
) -> Difference:
    """The difference of a mix: in layers that read these rows (1 - share) content + share style.

    Args:
      content: of the image whose other layers stay.
      style: of the other image.
      share: 0 to 1.
      rows: of `w_plus` that come from the style.
      layers: `Generator.style_layers`. The constant input goes with the first one.
    """
    row_of = {layer.name: layer.row for layer in layers} | {"input": layers[0].row}
    mixed = {}
    for path in content.keys() | style.keys():
        own, other = content.get(path), style.get(path)
        own = np.zeros_like(other) if own is None else own
        other = np.zeros_like(own) if other is None else other
        t = share if row_of[path.split("/")[1]] in rows else 0.0
        mixed[path] = ((1 - t) * own.astype(np.float32) + t * other.astype(np.float32)).astype(
            own.dtype
        )
    return mixed


def stack_differences(
    changes: list[Difference | None],
) -> dict[str, Float[np.ndarray, "B ..."]]:
    """Differences of a batch, [B, ...] each; zeros for None and where one has no such array."""
    example: Difference = {}
    for change in changes:
        example |= change or {}
    return {
        path: np.stack([(c or {}).get(path, np.zeros_like(array)) for c in changes])
        for path, array in example.items()
    }


def _may_differ(path: str) -> bool:
    return path.startswith(("params/", "noise/")) and not path.startswith("params/mapping/")
