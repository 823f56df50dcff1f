"""The built-in check of a conversion: read back, restore, compare with the source, evaluate."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.progressive import PROGRESSIVE
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.weights import Weights, load_weights

from . import torch_reference
from .conversion import Family
from .progress import tracked
from .report import summary
from .source_file import SourceFile
from .torch_file import import_torch

# Of the largest value; rounding alone stays below a hundredth of it.
LARGEST_DIFFERENCE = 1e-3


def verify(directory: str | Path, sources: Sequence[SourceFile], family: Family) -> list[str]:
    """Checks a weight directory against what it was converted from; returns lines to print.

    The directory is read from the disk and restored to the official layout. Every tensor there has
    to equal the source's bit for bit, after the source went through the storage type. Then every
    network runs once on random input; generators in rosinality's layout, encoders and face
    embedders also run in PyTorch (`torch_reference`), on the restored tensors.

    Raises:
      InputError: a tensor differs, an output is not finite, or PyTorch computes another.
    """
    weights = load_weights(directory)
    if type(family).restore is Family.restore:
        content: dict[str, Any] = {}
        lines = [f"verify: family {family.name} has no way back, no tensor was compared"]
    else:
        content = family.restore(weights)
        lines = _compare(weights, content, sources, family)
    for part in weights.metadata["architectures"]:
        lines.append(f"verify: {part} {_run(weights, part, content)}")
    return lines


def _compare(
    weights: Weights, content: Mapping[str, Any], sources: Sequence[SourceFile], family: Family
) -> list[str]:
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


def _run(weights: Weights, part: str, content: Mapping[str, Any]) -> str:
    """What one network's run showed, in words."""
    module, variables = weights.part(part)
    reference = _reference(module, part, content)
    examples = registry.EXAMPLES[type(module)](module)
    method = "__call__"
    if reference is not None:
        method, examples = reference.method, (jax.ShapeDtypeStruct(reference.shape, np.float32),)
    rng = np.random.default_rng(0)
    inputs = jax.tree.map(lambda x: (0.5 * rng.standard_normal(x.shape)).astype(x.dtype), examples)
    run = jax.jit(lambda variables, *inputs: module.apply(variables, *inputs, method=method))
    outputs = jax.tree.leaves(run(variables, *inputs))
    if not all(np.isfinite(x).all() for x in outputs):
        raise InputError(f"{weights.directory}: verify: the output of {part} is not finite")
    if reference is None:
        return "ran once, its output is finite"
    want = reference.evaluate(inputs[0])
    # Written so that NaN is too much.
    difference = float(np.abs(np.asarray(outputs[0]) - want).max() / np.abs(want).max())
    if not difference < LARGEST_DIFFERENCE:
        raise InputError(
            f"{weights.directory}: verify: {part} differs from PyTorch's evaluation of the source "
            f"by {difference:.1e} of its largest value"
        )
    return f"in PyTorch, on the source's tensors: largest relative difference {difference:.1e}"


class _Reference(NamedTuple):
    """The same network in PyTorch: our method's name, its input's shape, a NumPy function."""

    method: str
    shape: tuple[int, ...]
    evaluate: Callable[[np.ndarray], np.ndarray]


def _reference(module: registry.Module, part: str, content: Mapping[str, Any]) -> _Reference | None:
    """The network in PyTorch on the official file's tensors, or None where there is none."""
    prefix = {"encoder": "encoder.", "generator": "decoder."}.get(part, "")
    state = content.get("state_dict", content)
    if part == "generator" and "g_ema" in content:
        state, prefix = content["g_ema"], ""
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    shape: tuple[int, ...]
    if part == "generator" and "input.input" in own:
        shape = (1, module.num_styles, module.w_dim)
        evaluate = _in_torch(torch_reference.synthesis, own, is_image=False)
        return _Reference("synthesize", shape, evaluate)
    if part == "encoder" and "styles.0.linear.weight" in own:
        size = module.input_size
        options = {"units": module.units, "progressive": isinstance(module, PROGRESSIVE)}
        if isinstance(module, GradualStyleEncoder):
            options["starts"] = (module.middle_start, module.fine_start)
        evaluate = functools.partial(torch_reference.encoder, **options)
        shape = (1, size, size, module.input_channels)
        return _Reference("__call__", shape, _in_torch(evaluate, own))
    if isinstance(module, FaceEmbedder) and own:
        evaluate = functools.partial(torch_reference.embedder, units=module.units)
        shape = (1, module.input_size, module.input_size, 3)
        return _Reference("__call__", shape, _in_torch(evaluate, own))
    return None


def _in_torch(evaluate: Callable[..., Any], state: Mapping[str, Any], *, is_image: bool = True):
    torch = import_torch("--verify")

    def run(x: np.ndarray) -> np.ndarray:
        tensors = {
            k: torch.tensor(v) for k, v in state.items() if isinstance(v, np.ndarray | np.generic)
        }
        with torch.no_grad():
            value = torch.from_numpy(x)
            y = evaluate(tensors, value.permute(0, 3, 1, 2) if is_image else value)
            return (y.permute(0, 2, 3, 1) if y.ndim == 4 else y).numpy()

    return run
