"""Face recognition networks: ArcFace IR-SE50 and CurricularFace IR-101, as flat state dicts.

The files "model_ir_se50.pth" and "CurricularFace_Backbone.pth". A trunk of another depth or width
is read from the shapes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..ir_se_table import read_trunk, trunk_entries
from ..source_file import SourceFile, keys
from ..tensor_map import Entry, apply_map
from ..torch_modules import (
    COUNTERS,
    batch_norm,
    dense,
    flattened_dense,
    state_dict,
)

HEAD = "output_layer.3.weight"
GATE = "body.0.res_layer.5.fc1.weight"


def entries(embedder: FaceEmbedder) -> list[Entry]:
    """The state dict's keys for an embedder."""
    side = embedder.input_size >> len(embedder.units)
    flattened = flattened_dense((1, 2, 0), (embedder.widths[-1], side, side))
    return [
        *trunk_entries(
            embedder.units, embedder.widths, squeeze_excitation=embedder.squeeze_excitation
        ),
        *batch_norm("output_layer.0", "output_norm"),
        *dense("output_layer.3", "output_dense", layout=flattened),
        *batch_norm("output_layer.4", "embedding_norm", affine=embedder.affine_output),
    ]


class FaceEmbedderFamily(Family):
    """`arcface` (with squeeze-and-excitation and a last scale and bias) or `curricularface`."""

    def __init__(self, name: str, network: str, *, squeeze_excitation: bool, affine_output: bool):
        self.name = name
        self.licence = f"that of the {network} checkpoint's author; not stated in the file"
        self.fields = {"squeeze_excitation": squeeze_excitation, "affine_output": affine_output}

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the dense layer behind an IR trunk, and by squeeze-and-excitation in the trunk."""
        found = keys(sources)
        return HEAD in found and (GATE in found) == self.fields["squeeze_excitation"]

    def read_architecture(self, arrays: Mapping[str, np.ndarray], where: str) -> FaceEmbedder:
        """The network whose keys these are.

        Raises:
          InputError: no trunk, or no dense layer behind it.
        """
        try:
            units, widths = read_trunk(arrays)
            dim, columns = arrays[HEAD].shape
        except (KeyError, ValueError) as error:
            raise InputError(f"{where}: no face embedder can be read from it ({error})") from error
        input_size = round(math.sqrt(columns / widths[-1])) << len(units)
        return FaceEmbedder(units, widths, dim=dim, input_size=input_size, **self.fields)

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`."""
        where = " + ".join(str(s.path) for s in sources)
        arrays = {key: value for source in sources for key, value in source.arrays().items()}
        embedder = self.read_architecture(arrays, where)
        architecture = registry.describe(embedder)
        part = apply_map(
            arrays, entries(embedder), shapes(architecture), where=where, keep=COUNTERS
        )
        return Conversion({"embedder": part}, {"embedder": architecture})

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The flat state dict."""
        embedder, variables = weights.part("embedder")
        counters = weights.metadata["extra"].get("kept", {}).get("embedder", {})
        return state_dict(variables, entries(embedder), counters)


FAMILIES = (
    FaceEmbedderFamily("arcface", "ArcFace", squeeze_excitation=True, affine_output=True),
    FaceEmbedderFamily(
        "curricularface", "CurricularFace", squeeze_excitation=False, affine_output=False
    ),
)
