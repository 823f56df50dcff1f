"""Programs as StableHLO, by `jax.export`."""

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
      batch: rows of its input, or None for any number.
    """
    rows = export.symbolic_shape("batch")[0] if batch is None else batch
    spec = jax.ShapeDtypeStruct((rows, *program.row), np.float32)
    return bytes(export.export(jax.jit(program.function), platforms=PLATFORMS)(spec).serialize())


def run_stablehlo(
    content: bytes, value: Float[np.ndarray, "B ..."]
) -> dict[str, Float[np.ndarray, "..."]]:
    """What a file of `to_stablehlo` makes of its input [B, ...]: {name: array}."""
    return jax.device_get(jax.jit(export.deserialize(bytearray(content)).call)(value))
