"""Graphonomy's parser of CIHP's 20 labels, the file "inference.pth".

The official loader skips keys that do not fit; here all have to. Three tensors have no influence on
the official result: the third source layer, which the code replaces by the second, a transfer
table that a constant replaces, and a score that cancels. They stay in a part of their own, for the
way back.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import graphonomy_graphs as graphs
from interestyle_jax.models import registry
from interestyle_jax.models.graphonomy import DILATIONS, LABELS, Graphonomy
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile, keys, merge
from ..tensor_map import SAME, Entry, apply_map, restore_map
from ..torch_modules import (
    COUNTERS,
    batch_norm,
    convolution,
    state_dict,
)

TRUNK = "xception_features"
MIDDLE = re.compile(TRUNK + r"\.block(\d+)\.rep\.1\.depthwise\.weight")
# Blocks before the first of the middle ones.
FIRST_MIDDLE = 4
UNREAD = "unread"


def entries(parser: Graphonomy) -> list[Entry]:
    """The state dict's keys, without those that have no influence."""
    table = []
    for i in (1, 2):
        table += convolution(f"{TRUNK}.conv{i}", f"trunk/stem_conv_{i}")
        table += batch_norm(f"{TRUNK}.bn{i}", f"trunk/stem_norm_{i}")
    last = FIRST_MIDDLE + parser.middle_blocks
    exit_has_shortcut = parser.widths[5] != parser.widths[4]
    for i in range(1, last + 1):
        has_shortcut = exit_has_shortcut if i == last else i < FIRST_MIDDLE
        table += _block(i, "exit" if i == last else str(i), has_shortcut=has_shortcut)
    for i in range(3):
        table += _separable(f"{TRUNK}.conv{3 + i}", f"trunk/exit_conv_{i}")

    table += _projected("aspp1.atrous_convolution", "aspp1.bn", "pyramid_1")
    for i, dilation in enumerate(DILATIONS, 2):
        table += _separable(f"aspp{i}.atrous_convolution", f"pyramid_{dilation}")
    table += _projected("global_avg_pool.1", "global_avg_pool.2", "pyramid_mean")
    table += _projected("concat_projection_conv1", "concat_projection_bn1", "pyramid")
    table += _projected("feature_projection_conv1", "feature_projection_bn1", "low_level")
    for i in range(2):
        table += _separable(f"decoder.{i}.atrous_convolution", f"decoder_{i}")
    table += convolution("target_skip_conv.0", "skip", bias=True)
    table += convolution("semantic", "labels", bias=True)

    for side in ("source", "target"):
        table += [
            _matrix(f"{side}_featuremap_2_graph.pre_fea", f"{side}_share"),
            _matrix(f"{side}_featuremap_2_graph.weight", f"{side}_nodes"),
        ]
        # The third source layer is among the unread.
        table += [
            _matrix(f"{side}_graph_conv{i}.weight", f"{side}_layer_{i}")
            for i in ((1, 2) if side == "source" else (1, 2, 3))
        ]
    return table + [
        _matrix("transpose_graph.weight", "transfer"),
        _matrix("fc_graph.weight", "merge"),
        _matrix("target_graph_2_fea.node_fea_for_hidden", "node_score"),
        _matrix("target_graph_2_fea.weight", "node_features"),
    ]


def unread_shapes(parser: Graphonomy) -> dict[str, tuple[int, ...]]:
    """{key: shape} of the tensors without influence."""
    return {
        "source_graph_conv3.weight": (parser.hidden, parser.hidden),
        "transpose_graph.adj": (graphs.TARGET_NODES, graphs.SOURCE_NODES),
        "target_graph_2_fea.node_fea_for_res": (parser.features, 1),
    }


def _block(number: int, name: str, *, has_shortcut: bool) -> list[Entry]:
    source, target = f"{TRUNK}.block{number}", f"trunk/block_{name}"
    # The first block has no leading ReLU; the second's last convolution has a name of its own.
    places = [f"rep.{2 * i + (number > 1)}" for i in range(3)]
    if number == 2:
        places[2] = "block2_lastconv.1"
    table = []
    for i, place in enumerate(places, 1):
        table += _separable(f"{source}.{place}", f"{target}/conv_{i}")
    if has_shortcut:
        table += convolution(f"{source}.skip", f"{target}/shortcut_conv")
        table += batch_norm(f"{source}.skipbn", f"{target}/shortcut_norm")
    return table


def _separable(source: str, target: str) -> list[Entry]:
    table = []
    for name in ("depthwise", "pointwise"):
        table += convolution(f"{source}.{name}", f"{target}/{name}")
        table += batch_norm(f"{source}.{name}_bn", f"{target}/{name}_norm")
    return table


def _projected(source: str, norm: str, target: str) -> list[Entry]:
    return convolution(source, f"{target}_conv") + batch_norm(norm, f"{target}_norm")


def _matrix(source: str, name: str) -> Entry:
    """Matrices of the graphs lie as (in, out), as here."""
    return Entry(source, f"params/graph/{name}/kernel", SAME)


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> Graphonomy:
    """The parser whose weights these are, from shapes and the number of blocks alone.

    Raises:
      InputError: a key that the architecture is read from is missing or has too few axes, or
        the graphs are not those of 7 PASCAL and 20 CIHP labels.
    """
    blocks = [int(m[1]) for m in map(MIDDLE.fullmatch, arrays) if m]
    last = max(blocks, default=0)
    pointwise = [
        "block1.rep.4", "block2.block2_lastconv.1", "block3.rep.5", f"block{last}.rep.5",
        "conv3", "conv4", "conv5",
    ]  # fmt: skip
    try:
        widths = tuple(arrays[f"{TRUNK}.conv{i}.weight"].shape[0] for i in (1, 2))
        widths += tuple(arrays[f"{TRUNK}.{k}.pointwise.weight"].shape[0] for k in pointwise)
        features, hidden = arrays["target_featuremap_2_graph.weight"].shape
        low_level = arrays["feature_projection_bn1.weight"].shape[0]
        nodes = tuple(
            arrays[key].shape[axis]
            for key, axis in (
                ("semantic.weight", 0),
                ("target_featuremap_2_graph.pre_fea", 1),
                ("source_featuremap_2_graph.pre_fea", 1),
            )
        )
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{where}: no Graphonomy parser can be read from it ({error})") from error
    expected = (len(LABELS), graphs.TARGET_NODES, graphs.SOURCE_NODES)
    if nodes != expected:
        raise InputError(
            f"{where}: labels, target nodes and source nodes are {nodes}, expected {expected}: the "
            "CIHP parser that was transferred from PASCAL"
        )
    return Graphonomy(widths, last - FIRST_MIDDLE, features, low_level, hidden)


class GraphonomyFamily(Family):
    """`graphonomy`."""

    name = "graphonomy"
    licence = "MIT code (Gong et al.); CIHP's images are for non-commercial research"

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the trunk's stem and the transfer between the graphs."""
        return {f"{TRUNK}.conv1.weight", "transpose_graph.weight"} <= keys(sources)

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """The parser, and what has no influence as the part "unread"."""
        where = " + ".join(str(s.path) for s in sources)
        arrays = merge(sources)
        parser = read_architecture(arrays, where)
        architecture = registry.describe(parser)
        unread = unread_shapes(parser)
        mapped = apply_map(
            arrays,
            entries(parser) + [Entry(key, f"{UNREAD}/{key}") for key in unread],
            shapes(architecture) | {f"{UNREAD}/{key}": shape for key, shape in unread.items()},
            where=where,
            keep=COUNTERS,
        )
        network = {k: v for k, v in mapped.variables.items() if k != UNREAD}
        size = sum(int(np.prod(shape)) for shape in unread.values())
        parts = {
            "parser": dataclasses.replace(
                mapped,
                variables=network,
                tensors=mapped.tensors - len(unread),
                parameters=mapped.parameters - size,
            ),
            UNREAD: dataclasses.replace(
                mapped,
                variables=mapped.variables[UNREAD],
                tensors=len(unread),
                parameters=size,
                kept={},
            ),
        }
        return Conversion(
            parts,
            {"parser": architecture},
            notes=(f"{', '.join(unread)} have no influence, kept for the way back",),
        )

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The bare state dict."""
        parser, variables = weights.part("parser")
        counters = weights.metadata["extra"].get("kept", {}).get("parser", {})
        state = state_dict(variables, entries(parser), counters)
        table = [Entry(key, key) for key in unread_shapes(parser)]
        return state | restore_map(weights.variables[UNREAD], table)


FAMILIES = (GraphonomyFamily(),)
