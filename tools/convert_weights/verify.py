"""The built-in check of a conversion: read back, restore, compare with the source, run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.weights import Weights, load_weights
from tools.convert_weights.conversion import Family
from tools.convert_weights.progress import tracked
from tools.convert_weights.report import summary
from tools.convert_weights.source_file import SourceFile


def verify(directory: str | Path, sources: Sequence[SourceFile], family: Family) -> list[str]:
    """Checks a weight directory against what it was converted from; returns lines to print.

    The directory is read from the disk and restored to the official layout. Every tensor there has
    to equal the source's bit for bit, after the source went through the storage type. Then every
    network runs once on random input.

    Raises:
      InputError: a tensor differs, or an output is not finite.
    """
    weights = load_weights(directory)
    lines = _compare(weights, sources, family)
    for part in weights.metadata["architectures"]:
        _run(weights, part)
        lines.append(f"verify: {part} ran once, its output is finite")
    return lines


def _compare(weights: Weights, sources: Sequence[SourceFile], family: Family) -> list[str]:
    if type(family).restore is Family.restore:
        return [f"verify: family {family.name} has no way back, no tensor was compared"]
    content = family.restore(weights)
    contents = content.values() if family.files else [content]
    storage = weights.metadata["storage_dtype"]
    originals = [_by_path(source) for source in sources]
    compared, largest, left_out = 0, 0.0, []
    for restored in (_by_path(SourceFile.of("", item)) for item in contents):
        source = max(originals, key=lambda arrays: len(arrays.keys() & restored.keys()))
        if not source.keys() & restored.keys():
            return [f"verify: the source is not in the layout that {family.name} goes back to"]
        left_out += sorted(source.keys() - restored.keys())
        common = sorted(source.keys() & restored.keys())
        for key in tracked(common, "verify", total=len(common)):
            largest = max(largest, _difference(source[key], restored[key], key, storage, weights))
        compared += len(common)
    lines = [
        f"verify: {compared:,} tensors are the source's, bit for bit"
        + ("" if storage == "float32" else f" after rounding to {storage}")
        + f"; largest relative difference {largest:.1e}"
    ]
    return lines + ([f"verify: not compared: {summary(left_out)}"] if left_out else [])


def _by_path(source: SourceFile) -> dict[str, np.ndarray]:
    """Arrays by key; a state dict's dots count as levels, as pickled networks have them."""
    return {key.replace(".", "/"): array for key, array in source.arrays().items()}


def _difference(
    source: np.ndarray, restored: np.ndarray, key: str, storage: str, weights: Weights
) -> float:
    """The largest difference relative to the source's largest value; raises where bits differ."""
    expected = source
    if jnp.issubdtype(source.dtype, jnp.floating):
        stored = source.dtype if storage == "mixed" else jnp.dtype(storage)
        expected = source.astype(stored).astype(np.float32)
    same = expected.shape == restored.shape and expected.dtype == restored.dtype
    # Bytes, so that NaN equals itself and -0 differs from 0.
    if not same or expected.tobytes() != np.ascontiguousarray(restored).tobytes():
        raise InputError(f"{weights.directory}: verify: {key} is not what the source has")
    if expected is source or not source.size:
        return 0.0
    exact = source.astype(np.float64)
    scale = np.abs(exact).max()
    return float(np.abs(exact - expected).max() / scale) if scale > 0 else 0.0


def _run(weights: Weights, part: str) -> None:
    module, variables = weights.part(part)
    rng = np.random.default_rng(0)
    inputs = [
        rng.standard_normal(x.shape).astype(x.dtype)
        for x in registry.EXAMPLES[type(module)](module)
    ]

    @jax.jit
    def finite(variables: Mapping[str, Any], inputs: list[jax.Array]) -> jax.Array:
        outputs = jax.tree.leaves(module.apply(variables, *inputs))
        return jnp.array([jnp.isfinite(x).all() for x in outputs]).all()

    if not finite(variables, inputs):
        raise InputError(f"{weights.directory}: verify: the output of {part} is not finite")
