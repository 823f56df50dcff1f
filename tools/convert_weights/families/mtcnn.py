"""MTCNN's three files, "pnet.npy", "rnet.npy" and "onet.npy", each a pickled dict of arrays.

Which file is which is reported by its keys, not by its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.mtcnn import ONet, PNet, RNet
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile
from ..tensor_map import Entry, apply_map, restore_map
from ..torch_modules import convolution, dense, flattened_dense, prelu

NETWORKS: dict[str, Any] = {"pnet": PNet, "rnet": RNet, "onet": ONet}
# The output layer that only this network has.
OUTPUT = {"pnet": "conv4_1.weight", "rnet": "conv5_1.weight", "onet": "conv6_1.weight"}
HEADS = {
    "pnet": {"classes": "conv4_1", "offsets": "conv4_2"},
    "rnet": {"classes": "conv5_1", "offsets": "conv5_2"},
    "onet": {"classes": "conv6_1", "offsets": "conv6_2", "landmarks": "conv6_3"},
}
# Side of the map that the dense layers of R- and O-Net read.
SIDE = 3


def entries(name: str, widths: Sequence[int]) -> list[Entry]:
    """A file's keys; `name` is "pnet", "rnet" or "onet"."""
    is_dense = name != "pnet"
    table = []
    for i in range(len(widths) - is_dense):
        table += convolution(f"features.conv{i + 1}", f"conv_{i}", bias=True)
        table += prelu(f"features.prelu{i + 1}", f"prelu_{i}")
    if is_dense:
        # The official flattening puts columns before rows.
        layout = flattened_dense((2, 1, 0), (widths[-2], SIDE, SIDE))
        table += dense(f"features.conv{len(widths)}", "dense", layout=layout)
        table += prelu(f"features.prelu{len(widths)}", "dense_prelu")
    for head, source in HEADS[name].items():
        table += dense(source, head) if is_dense else convolution(source, head, bias=True)
    return table


def network_of(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The network ("pnet", "rnet" or "onet") that a file holds, or None for another file."""
    found = [name for name, key in OUTPUT.items() if key in arrays]
    return found[0] if len(found) == 1 and "features.prelu1.weight" in arrays else None


class MtcnnFamily(Family):
    """`mtcnn`."""

    name = "mtcnn"
    licence = "MIT (the mtcnn-pytorch files that ReStyle carries)"
    files = ("pnet.npy", "rnet.npy", "onet.npy")

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By each file's output layer."""
        return all(network_of(source.arrays()) for source in sources)

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """One to three of the files, in any order; detecting faces needs all three.

        Raises:
          InputError: also where one of them is there twice or of another kind.
        """
        where = " + ".join(str(s.path) for s in sources)
        found = [network_of(source.arrays()) or "another file" for source in sources]
        if "another file" in found or len(set(found)) < len(found):
            raise InputError(
                f"{where}: {', '.join(found)}; expected the files {', '.join(self.files)}"
            )
        parts, architectures = {}, {}
        for name, source in sorted(zip(found, sources, strict=True), key=lambda pair: pair[0]):
            arrays = source.arrays()
            count = len(NETWORKS[name]().widths)
            weights = [arrays.get(f"features.conv{i + 1}.weight") for i in range(count)]
            if any(array is None or array.ndim < 1 for array in weights):
                raise InputError(f"{source.path}: expected features.conv1 to conv{count}.weight")
            widths = tuple(array.shape[0] for array in weights)
            architectures[name] = registry.describe(NETWORKS[name](widths))
            parts[name] = apply_map(
                arrays, entries(name, widths), shapes(architectures[name]), where=str(source.path)
            )
        return Conversion(parts, architectures)

    def restore(self, weights: Weights) -> dict[str, Any]:
        """{file name: that file's dict of arrays}, for the networks that are there."""
        contents = {}
        for name in weights.metadata["architectures"]:
            module, variables = weights.part(name)
            contents[f"{name}.npy"] = restore_map(variables, entries(name, module.widths))
        return contents


FAMILIES = (MtcnnFamily(),)
