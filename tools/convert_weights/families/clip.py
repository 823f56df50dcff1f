"""CLIP: OpenAI's TorchScript archives, and checkpoints of open_clip and of transformers.

The files "ViT-B-32.pt" and "RN50.pt", "open_clip_model.safetensors" and "model.safetensors", and
their like. Sizes are read from the shapes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.weights import Weights

from ..clip_table import entries, layout_of, read_architecture, with_columns
from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile
from ..tensor_map import apply_map
from ..torch_modules import COUNTERS, state_dict

SECTION = "state_dict/"
# Whole numbers that OpenAI's archives hold beside the tensors.
OPENAI = ("input_resolution", "context_length", "vocab_size")
KEPT = rf"{COUNTERS}|{'|'.join(OPENAI)}"
IGNORED = r"(.*\.)?(attn_mask|position_ids)"
TRAINING = ("optimizer/", "scaler/")
ACTIVATIONS = ("quick_gelu", "gelu")


class ClipFamily(Family):
    """`clip`."""

    name = "clip"
    licence = (
        "that of the checkpoint: OpenAI's networks MIT (their model card advises research use), "
        "open_clip's as their model pages say"
    )
    options = ("activation",)

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the token embedding and the image tower's first convolution."""
        return layout_of(_tensors(sources)[0]) is not None

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`."""
        return self.convert_with(sources)

    def convert_with(self, sources: Sequence[SourceFile], **options: Any) -> Conversion:
        """See `Family.convert_with`; `activation` is one of `ACTIVATIONS`."""
        where = " + ".join(str(s.path) for s in sources)
        arrays, left_out = _tensors(sources)
        layout = layout_of(arrays)
        if layout is None:
            raise InputError(
                f"{where}: no CLIP network, expected token_embedding.weight and visual"
            )
        quick_gelu = _activation(arrays, options.get("activation"), where) == "quick_gelu"
        clip = read_architecture(arrays, layout, quick_gelu=quick_gelu, where=where)
        scale_axes = arrays["logit_scale"].ndim if "logit_scale" in arrays else 0
        architecture = registry.describe(clip)
        part = apply_map(
            arrays,
            with_columns(entries(clip, layout, scale_axes=scale_axes), clip),
            shapes(architecture),
            where=where,
            ignore=IGNORED,
            keep=KEPT,
        )
        extra = {"layout": layout, "logit_scale_axes": scale_axes}
        return Conversion({"clip": part}, {"clip": architecture}, extra, left_out)

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The state dict in the layout that it came in, flat."""
        clip, variables = weights.part("clip")
        extra = weights.metadata["extra"]
        table = entries(
            clip,
            extra.get("layout", "open_clip"),
            scale_axes=extra.get("logit_scale_axes", 0),
        )
        counters = extra.get("kept", {}).get("clip", {})
        return state_dict(variables, with_columns(table, clip), counters)


def _tensors(sources: Sequence[SourceFile]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The network's tensors by key, and the keys of a training's state around it."""
    arrays = {key: value for source in sources for key, value in source.arrays().items()}
    left_out = tuple(key for key in arrays if key.startswith(TRAINING))
    own = {k.removeprefix(SECTION): v for k, v in arrays.items() if k not in left_out}
    return own, left_out


def _activation(arrays: Mapping[str, np.ndarray], asked: str | None, where: str) -> str:
    """What the file says, or else what the user says."""
    is_openai = all(key in arrays for key in OPENAI)
    if asked is not None and asked not in ACTIVATIONS:
        raise InputError(f"--activation: {asked!r}, expected one of {', '.join(ACTIVATIONS)}")
    if is_openai and asked == "gelu":
        raise InputError(f"--activation: gelu, but {where} is of OpenAI, whose is quick_gelu")
    if is_openai or asked is not None:
        return asked or "quick_gelu"
    raise InputError(
        f"{where}: does not say its activation, and the wrong one changes every feature; expected "
        "--activation=quick_gelu (OpenAI's networks, hidden_act quick_gelu, names with "
        '"quickgelu" or "openai") or --activation=gelu (open_clip\'s others)'
    )


FAMILIES = (ClipFamily(),)
