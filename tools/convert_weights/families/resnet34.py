"""torchvision's ResNet34, the file "resnet34-333f7ec4.pth": a trunk for the ResNet encoders.

Blocks are numbered through, as the encoders have them. The classifier is left out. The part has no
architecture of its own: the encoders' stem has a PReLU, torchvision's has none, so `trunk` is a
`ResNetTrunk` without `stem_prelu` that `config.weights.trunk` takes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.resnet import ResNetTrunk
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile, keys
from ..tensor_map import Entry, apply_map
from ..torch_modules import COUNTERS, batch_norm, convolution, state_dict

BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv2\.weight")
CLASSIFIER = r"fc\.(weight|bias)"
PRELU = "params/stem_prelu/slope"


def entries(trunk: ResNetTrunk) -> list[Entry]:
    """The state dict's keys, without the classifier's."""
    table = convolution("conv1", "stem_conv") + batch_norm("bn1", "stem_norm")
    block, before = 0, trunk.widths[0]
    for stage, (count, width) in enumerate(zip(trunk.units, trunk.widths[1:], strict=True), 1):
        for unit in range(count):
            source, target = f"layer{stage}.{unit}", f"block_{block}"
            for k in (1, 2):
                table += convolution(f"{source}.conv{k}", f"{target}/conv_{k}")
                table += batch_norm(f"{source}.bn{k}", f"{target}/norm_{k}")
            if unit == 0 and (stage > 1 or width != before):
                table += convolution(f"{source}.downsample.0", f"{target}/shortcut_conv")
                table += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
            block, before = block + 1, width
    return table


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> ResNetTrunk:
    """The trunk whose keys these are.

    Raises:
      InputError: no stem, or no blocks.
    """
    blocks = [(int(m[1]), arrays[m[0]].shape[0]) for m in map(BLOCK.fullmatch, arrays) if m]
    stem = arrays.get("conv1.weight")
    if not blocks or stem is None or stem.ndim != 4:
        raise InputError(f"{where}: no ResNet34 can be read from it, expected conv1 and layer1.0")
    stages = range(1, max(stage for stage, _ in blocks) + 1)
    units = tuple(sum(s == stage for s, _ in blocks) for stage in stages)
    widths = tuple(max((w for s, w in blocks if s == stage), default=0) for stage in stages)
    return ResNetTrunk(units, (stem.shape[0], *widths))


def _trunk_of(variables: Mapping[str, Any]) -> ResNetTrunk:
    """The trunk whose variables these are; a block with a shortcut, or the first, opens a stage."""
    blocks = variables["params"]
    units, widths = [], [blocks["stem_conv"]["kernel"].shape[-1]]
    for i in range(sum(name.startswith("block_") for name in blocks)):
        block = blocks[f"block_{i}"]
        if i == 0 or "shortcut_conv" in block:
            units.append(0)
            widths.append(block["conv_2"]["kernel"].shape[-1])
        units[-1] += 1
    return ResNetTrunk(tuple(units), tuple(widths))


class ResNet34Family(Family):
    """`resnet34`."""

    name = "resnet34"
    licence = "torchvision's ImageNet weights, BSD-3-Clause (PyTorch contributors)"

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By basic blocks: two convolutions each, where deeper ResNets have three."""
        found = keys(sources)
        blocks = {"conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"}
        return blocks <= found and "layer1.0.conv3.weight" not in found

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`."""
        where = " + ".join(str(s.path) for s in sources)
        arrays = {key: value for source in sources for key, value in source.arrays().items()}
        trunk = read_architecture(arrays, where)
        expected = shapes(registry.describe(trunk))
        del expected[PRELU]
        part = apply_map(
            arrays, entries(trunk), expected, where=where, ignore=CLASSIFIER, keep=COUNTERS
        )
        return Conversion({"trunk": part}, {})

    def restore(self, weights: Weights) -> dict[str, Any]:
        """torchvision's state dict without the classifier, which nothing here reads."""
        if "trunk" not in weights.variables:
            raise InputError(f"{weights.directory}: no trunk in these weights")
        variables = weights.variables["trunk"]
        counters = weights.metadata["extra"].get("kept", {}).get("trunk", {})
        return state_dict(variables, entries(_trunk_of(variables)), counters)


FAMILIES = (ResNet34Family(),)
