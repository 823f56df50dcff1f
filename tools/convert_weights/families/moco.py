"""MoCo v2's ResNet50, the file "moco_v2_800ep_pretrain.pth.tar".

Only the query encoder up to its global mean is used. Its projection head, the key encoder, the
queue and the optimizer are left out, and said to be.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.moco import MocoEmbedder
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import PARALLEL, SourceFile, keys
from ..tensor_map import Entry, apply_map
from ..torch_modules import COUNTERS, batch_norm, convolution, state_dict

SECTION = "state_dict/"
QUERY = f"{SECTION}encoder_q."
BLOCK = re.compile(re.escape(QUERY) + r"layer(\d+)\.(\d+)\.conv1\.weight")
LEFT_OUT = (
    r"state_dict/(encoder_q\.fc\..*|encoder_k\..*|queue(_ptr)?)|(optimizer|scheduler|scaler)/.*"
)


def entries(embedder: MocoEmbedder) -> list[Entry]:
    """The file's keys, without DataParallel's "module.", joined by "/"."""
    table = convolution(f"{QUERY}conv1", "stem_conv") + batch_norm(f"{QUERY}bn1", "stem_norm")
    block = 0
    for stage, count in enumerate(embedder.units, 1):
        for unit in range(count):
            source, target = f"{QUERY}layer{stage}.{unit}", f"block_{block}"
            for k in (1, 2, 3):
                table += convolution(f"{source}.conv{k}", f"{target}/conv_{k}")
                table += batch_norm(f"{source}.bn{k}", f"{target}/norm_{k}")
            if unit == 0:
                table += convolution(f"{source}.downsample.0", f"{target}/shortcut_conv")
                table += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
            block += 1
    return table


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> MocoEmbedder:
    """The network whose query encoder lies in these arrays.

    Raises:
      InputError: no stem, or no blocks.
    """
    stages = [int(m[1]) for m in map(BLOCK.fullmatch, arrays) if m]
    stem = arrays.get(f"{QUERY}conv1.weight")
    if not stages or stem is None or stem.ndim != 4:
        raise InputError(
            f"{where}: no MoCo network can be read from it, expected {QUERY}conv1.weight and blocks"
        )
    units = tuple(stages.count(k) for k in range(1, max(stages) + 1))
    return MocoEmbedder(units, width=stem.shape[0])


class MocoFamily(Family):
    """`moco`."""

    name = "moco"
    licence = "MoCo v2's pretrained models: CC BY-NC 4.0 (Facebook AI Research)"

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the query encoder's stem."""
        return f"{QUERY}conv1.weight" in keys(sources)

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`."""
        where = " + ".join(str(s.path) for s in sources)
        arrays = {key: value for source in sources for key, value in source.arrays().items()}
        embedder = read_architecture(arrays, where)
        architecture = registry.describe(embedder)
        part = apply_map(
            arrays,
            entries(embedder),
            shapes(architecture),
            where=where,
            ignore=LEFT_OUT,
            keep=re.escape(QUERY) + COUNTERS,
        )
        plain = {
            key: value
            for source in sources
            for key, value in source.content.items()
            if isinstance(value, str | int | float)
        }
        return Conversion({"embedder": part}, {"embedder": architecture}, {"values": plain})

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The trainer's layout with the query encoder alone, which is all that the losses load."""
        embedder, variables = weights.part("embedder")
        extra = weights.metadata["extra"]
        counters = extra.get("kept", {}).get("embedder", {})
        arrays = state_dict(variables, entries(embedder), counters)
        section = {PARALLEL + key.removeprefix(SECTION): value for key, value in arrays.items()}
        return {**extra.get("values", {}), "state_dict": section}


FAMILIES = (MocoFamily(),)
