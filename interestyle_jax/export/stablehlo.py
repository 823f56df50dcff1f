"""Programs as StableHLO, by `jax.export`."""

from collections.abc import Sequence

import jax
import numpy as np
from jax import export
from jaxtyping import Float

from interestyle_jax.export.program import Program

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(program: Program, batch: int | None) -> bytes:
    """The content of a file that `jax.export.deserialize` reads, for all of `PLATFORMS`.

    Args:
      program: what to write.
      batch: rows of its inputs, or None for any number.
    """
    rows = export.symbolic_shape("batch")[0] if batch is None else batch
    specs = [jax.ShapeDtypeStruct((rows, *row), np.float32) for row in program.inputs.values()]
    return bytes(export.export(jax.jit(program.function), platforms=PLATFORMS)(*specs).serialize())


def run_stablehlo(
    content: bytes, values: Sequence[Float[np.ndarray, "B ..."]]
) -> dict[str, Float[np.ndarray, "..."]]:
    """What a file of `to_stablehlo` makes of its inputs, [B, ...] each: {name: array}."""
    return jax.device_get(jax.jit(export.deserialize(bytearray(content)).call)(*values))
