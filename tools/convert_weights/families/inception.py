"""Inception-v3 of FID: pytorch-fid's state dict, or NVIDIA's TorchScript archive.

Sources: "pt_inception-2015-12-05-6726825d.pth" (torchvision's layer names) and
"inception-2015-12-05.pt" (TensorFlow's). Both hold the TensorFlow network of 2015-12-05. The
classifier is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.inception import BLOCKS, Inception, convolution_names
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile, merge
from ..tensor_map import CONVOLUTION, Entry, apply_map
from ..torch_modules import COUNTERS, batch_norm, convolution, state_dict

STEM_WIDTH = 32
CLASSIFIER = r"(fc|output)\.(weight|bias)"
# What NVIDIA's file calls the branches of each kind of block; "_1" ... follow within a chain.
_TOWERS = {
    "5": {"branch1x1": "conv", "branch5x5": "tower.", "branch3x3dbl": "tower_1."},
    "6a": {"branch3x3": "conv", "branch3x3dbl": "tower."},
    "6": {"branch1x1": "conv", "branch7x7": "tower.", "branch7x7dbl": "tower_1."},
    "7a": {"branch3x3": "tower.", "branch7x7x3": "tower_1."},
    "7": {"branch1x1": "conv", "branch3x3": "tower_", "branch3x3dbl": "tower_1_"},
}
_FORKS = {"2a": "mixed_conv", "2b": "mixed_conv_1", "3a": "mixed_conv", "3b": "mixed_conv_1"}


def nvidia_name(place: str) -> str:
    """NVIDIA's name of a convolution's place: "Mixed_6b/branch7x7_2" -> "mixed_4.tower.conv_1"."""
    names = [name for name in convolution_names() if "/" not in name]
    if place in names:
        return _numbered("conv", names.index(place))
    block, layer = place.split("/")
    number = list(BLOCKS).index(block)
    which = block.removeprefix("Mixed_")
    towers = _TOWERS.get(which) or _TOWERS[which[0]]
    branch, _, step = layer.partition("_")
    if layer == "branch_pool":
        own = "tower_2_conv" if which in ("7b", "7c") else "tower_2.conv"
    elif not step:
        own = towers[branch]
    else:
        own = towers[branch] + (_FORKS.get(step) or _numbered("conv", int(step) - 1))
    return f"{_numbered('mixed', number)}.{own}"


def _numbered(word: str, number: int) -> str:
    return f"{word}_{number}" if number else word


def torch_entries() -> list[Entry]:
    """Keys of pytorch-fid's state dict."""
    table = []
    for place in convolution_names():
        source = place.replace("/", ".")
        table += convolution(f"{source}.conv", f"{place}/conv")
        table += batch_norm(f"{source}.bn", f"{place}/bn")
    return table


def nvidia_entries() -> list[Entry]:
    """Keys of NVIDIA's state dict, and "gamma", which is 1 there and not in the file."""
    table = []
    for place in convolution_names():
        source = f"layers.{nvidia_name(place)}"
        table += [
            Entry(f"{source}.weight", f"params/{place}/conv/kernel", CONVOLUTION),
            Entry(f"{source}.gamma", f"params/{place}/bn/scale"),
            Entry(f"{source}.beta", f"params/{place}/bn/bias"),
            Entry(f"{source}.mean", f"batch_stats/{place}/bn/mean"),
            Entry(f"{source}.var", f"batch_stats/{place}/bn/var"),
        ]
    return table


class InceptionFamily(Family):
    """`inception`."""

    name = "inception"
    licence = "TensorFlow's Inception-v3 of 2015-12-05: Apache-2.0 (The TensorFlow Authors)"

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the first convolution and one of the last block."""
        found = {key for source in sources for key in source.arrays()}
        torch = {"Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch1x1.conv.weight"}
        return torch <= found or {"layers.conv.weight", "layers.mixed_10.conv.weight"} <= found

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`.

        Raises:
          InputError: keys missing, unused or of another shape: torchvision's own network, which
            is another one, has an auxiliary head.
        """
        where = " + ".join(str(s.path) for s in sources)
        arrays: Mapping[str, np.ndarray] = merge(sources)
        if any(key.startswith("AuxLogits.") for key in arrays):
            raise InputError(
                f"{where}: is torchvision's Inception, expected FID's (pytorch-fid's "
                "pt_inception-2015-12-05-6726825d.pth, or NVIDIA's inception-2015-12-05.pt)"
            )
        is_nvidia = "layers.conv.weight" in arrays
        if is_nvidia:
            ones = {
                f"{key.removesuffix('.beta')}.gamma": np.ones_like(value)
                for key, value in arrays.items()
                if key.endswith(".beta")
            }
            arrays = {**arrays, **ones}
        stem = arrays["layers.conv.weight" if is_nvidia else "Conv2d_1a_3x3.conv.weight"]
        architecture = registry.describe(Inception(STEM_WIDTH // max(1, len(stem))))
        part = apply_map(
            arrays,
            nvidia_entries() if is_nvidia else torch_entries(),
            shapes(architecture),
            where=where,
            ignore=CLASSIFIER,
            keep=COUNTERS,
        )
        return Conversion({"inception": part}, {"inception": architecture})

    def restore(self, weights: Weights) -> dict[str, Any]:
        """pytorch-fid's state dict without the classifier, whichever file it came from."""
        _, variables = weights.part("inception")
        counters = weights.metadata["extra"].get("kept", {}).get("inception", {})
        return state_dict(variables, torch_entries(), counters)


FAMILIES = (InceptionFamily(),)
