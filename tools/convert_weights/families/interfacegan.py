"""InterFaceGAN directions: a file that is one tensor, [1, D] (in W) or [1, L, D] (in W+).

The files "age.pt", "smile.pt" and "pose.pt" of ReStyle.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family
from ..source_file import BARE, SourceFile
from ..tensor_map import Entry, Mapped, apply_map

PART = "direction"


def _is_direction(array: np.ndarray) -> bool:
    # NumPy does not count bfloat16 among its floats.
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    return array.ndim in (2, 3) and array.shape[0] == 1 and is_float


class InterfaceGanFamily(Family):
    """`interfacegan`."""

    name = "interfacegan"
    licence = "MIT (the ReStyle repository), for directions in NVIDIA's StyleGAN2-FFHQ"

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By being one array of a direction's shape."""
        return len(sources) == 1 and _is_direction(sources[0].content.get(BARE, np.zeros(0)))

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`; one file."""
        where = " + ".join(str(s.path) for s in sources)
        array = sources[0].content.get(BARE)
        if len(sources) != 1 or array is None or not _is_direction(array):
            shape = "no single array" if array is None else f"{array.dtype} {list(array.shape)}"
            raise InputError(f"{where}: {shape}, expected one direction, [1, D] or [1, L, D]")
        part = apply_map({BARE: array}, [Entry(BARE, PART)], {PART: array.shape}, where=where)
        return Conversion({PART: _alone(part)}, {})

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The bare tensor."""
        if PART not in weights.variables:
            raise InputError(f"{weights.directory}: no {PART} in these weights")
        return {BARE: weights.variables[PART]}


def _alone(part: Mapped) -> Mapped:
    return dataclasses.replace(part, variables=part.variables[PART])


FAMILIES = (InterfaceGanFamily(),)
