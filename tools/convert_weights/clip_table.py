"""CLIP's tensors under their keys in files of OpenAI and open_clip, and of transformers."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models.clip import CLIP
from interestyle_jax.models.clip_resnet import HALVINGS

from .tensor_map import DENSE, Entry, Layout
from .torch_modules import batch_norm, convolution, dense

# Widths of open_clip's towers whose heads are not 64 wide (ViT-H, ViT-g, ViT-bigG), and the heads.
HEADS = {1280: 16, 1408: 16, 1664: 16}
HEAD_WIDTH = 64
STAGE = re.compile(r"visual\.layer(\d+)\.(\d+)\.conv1\.weight")
NUMBER = Layout(lambda x: x.reshape(()), lambda x: x)
NUMBERS = Layout(lambda x: x.reshape(()), lambda x: x.reshape(1))


@dataclasses.dataclass(frozen=True)
class Keys:
    """How one kind of file names what both kinds have.

    Attributes:
      text: what the text tower's keys begin with.
      image: likewise the image tower's.
      layers: between these and a block's number.
    """

    layout: str
    image: str
    text: str
    layers: str

    @property
    def is_transformers(self) -> bool:
        """Whether query, key and value lie apart, and projections are dense layers."""
        return self.layout == "transformers"


LAYOUTS = {
    keys.layout: keys
    for keys in (
        Keys("open_clip", "visual.", "", "transformer.resblocks."),
        # Where open_clip's text tower is a module of its own.
        Keys("open_clip_text", "visual.", "text.", "transformer.resblocks."),
        Keys("transformers", "vision_model.", "text_model.", "encoder.layers."),
    )
}
TOKENS = {
    "open_clip": "token_embedding.weight",
    "open_clip_text": "text.token_embedding.weight",
    "transformers": "text_model.embeddings.token_embedding.weight",
}
# Of the image tower: of a vision transformer, and of CLIP's ResNet.
STEMS = ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")


def layout_of(names: Mapping[str, np.ndarray] | frozenset[str]) -> str | None:
    """The layout whose keys these are, or None."""
    if not any(stem in names for stem in STEMS):
        return None
    return next((layout for layout, key in TOKENS.items() if key in names), None)


def entries(clip: CLIP, layout: str, *, scale_axes: int = 0) -> list[Entry]:
    """The table of a network; `scale_axes` is 1 where the file's logit scale is [1], not []."""
    keys = LAYOUTS[layout]
    numbers = NUMBERS if scale_axes else NUMBER
    table = [Entry("logit_scale", "params/logit_scale", numbers)]
    names = _transformers(keys) if keys.is_transformers else _open_clip(keys)
    table += [Entry(names[target], f"params/{target}") for target in names if names[target]]
    table += _projections(keys)
    table += _norm(_final_norm(keys), "text/norm")
    table += _blocks(keys, keys.text, "text", clip.text_layers)
    if not isinstance(clip.vision_layers, int):
        return [e for e in table if not e.target.startswith("params/visual")] + _resnet(clip)
    before = "embeddings.patch_embedding" if keys.is_transformers else "conv1"
    table += convolution(f"{keys.image}{before}", "visual/patch_embedding")
    norms = ("pre_layrnorm", "post_layernorm") if keys.is_transformers else ("ln_pre", "ln_post")
    for source, target in zip(norms, ("norm_pre", "norm_post"), strict=True):
        table += _norm(f"{keys.image}{source}", f"visual/{target}")
    return table + _blocks(keys, keys.image, "visual", clip.vision_layers)


def _open_clip(keys: Keys) -> dict[str, str]:
    return {
        "text/token_embedding": f"{keys.text}token_embedding.weight",
        "text/positional_embedding": f"{keys.text}positional_embedding",
        "visual/class_embedding": f"{keys.image}class_embedding",
        "visual/positional_embedding": f"{keys.image}positional_embedding",
    }


def _transformers(keys: Keys) -> dict[str, str]:
    return {
        "text/token_embedding": f"{keys.text}embeddings.token_embedding.weight",
        "text/positional_embedding": f"{keys.text}embeddings.position_embedding.weight",
        "visual/class_embedding": f"{keys.image}embeddings.class_embedding",
        "visual/positional_embedding": f"{keys.image}embeddings.position_embedding.weight",
    }


def _projections(keys: Keys) -> list[Entry]:
    if keys.is_transformers:
        return [
            Entry("text_projection.weight", "params/text/projection", DENSE),
            Entry("visual_projection.weight", "params/visual/projection", DENSE),
        ]
    return [
        Entry(f"{keys.text}text_projection", "params/text/projection"),
        Entry(f"{keys.image}proj", "params/visual/projection"),
    ]


def _final_norm(keys: Keys) -> str:
    return f"{keys.text}final_layer_norm" if keys.is_transformers else f"{keys.text}ln_final"


def _norm(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}.weight", f"params/{target}/scale"),
        Entry(f"{source}.bias", f"params/{target}/bias"),
    ]


def _blocks(keys: Keys, tower: str, target: str, count: int) -> list[Entry]:
    table: list[Entry] = []
    for i in range(count):
        source, here = f"{tower}{keys.layers}{i}", f"{target}/block_{i}"
        if keys.is_transformers:
            table += _apart(f"{source}.self_attn", f"params/{here}/attention/in_proj")
            table += dense(f"{source}.self_attn.out_proj", f"{here}/attention/out_proj")
            norms, layers = ("layer_norm1", "layer_norm2"), ("mlp.fc1", "mlp.fc2")
        else:
            attention = f"params/{here}/attention/in_proj"
            table += [
                Entry(f"{source}.attn.in_proj_weight", f"{attention}/kernel", DENSE),
                Entry(f"{source}.attn.in_proj_bias", f"{attention}/bias"),
            ]
            table += dense(f"{source}.attn.out_proj", f"{here}/attention/out_proj")
            norms, layers = ("ln_1", "ln_2"), ("mlp.c_fc", "mlp.c_proj")
        for k, (norm, layer) in enumerate(zip(norms, layers, strict=True), start=1):
            table += _norm(f"{source}.{norm}", f"{here}/norm_{k}")
            table += dense(f"{source}.{layer}", f"{here}/mlp_{k}")
    return table


def _apart(source: str, target: str) -> list[Entry]:
    """Query, key and value, which lie side by side here; `with_columns` says where."""
    return [
        entry
        for part in ("q_proj", "k_proj", "v_proj")
        for entry in (
            Entry(f"{source}.{part}.weight", f"{target}/kernel", DENSE),
            Entry(f"{source}.{part}.bias", f"{target}/bias"),
        )
    ]


def with_columns(table: list[Entry], clip: CLIP) -> list[Entry]:
    """The table with the places of query, key and value along their common axis."""
    order = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
    found = []
    for entry in table:
        part = next((n for n in order if f"self_attn.{n}." in entry.source), None)
        if part is not None:
            is_text = entry.target.startswith("params/text")
            width = clip.text_width if is_text else clip.vision_width
            start = order[part] * width
            entry = dataclasses.replace(entry, columns=(start, start + width))
        found.append(entry)
    return found


def _resnet(clip: CLIP) -> list[Entry]:
    table: list[Entry] = []
    stages = clip.vision_layers
    assert not isinstance(stages, int)
    for k in (1, 2, 3):
        table += convolution(f"visual.conv{k}", f"visual/stem_conv_{k}")
        table += batch_norm(f"visual.bn{k}", f"visual/stem_norm_{k}")
    block = 0
    for stage, count in enumerate(stages, start=1):
        for unit in range(count):
            source, target = f"visual.layer{stage}.{unit}", f"visual/block_{block}"
            for k in (1, 2, 3):
                table += convolution(f"{source}.conv{k}", f"{target}/conv_{k}")
                table += batch_norm(f"{source}.bn{k}", f"{target}/norm_{k}")
            if unit == 0:
                table += convolution(f"{source}.downsample.0", f"{target}/shortcut_conv")
                table += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
            block += 1
    place = "positional_embedding"
    table.append(Entry(f"visual.attnpool.{place}", f"params/visual/pool/{place}"))
    for name in ("q_proj", "k_proj", "v_proj", "c_proj"):
        table += dense(f"visual.attnpool.{name}", f"visual/pool/{name}")
    return table


def read_architecture(
    arrays: Mapping[str, np.ndarray], layout: str, *, quick_gelu: bool, where: str
) -> CLIP:
    """The network whose tensors these are; sizes are read from shapes.

    Raises:
      InputError: a tensor that tells a size is missing or has another number of axes.
    """
    keys = LAYOUTS[layout]
    names = _transformers(keys) if keys.is_transformers else _open_clip(keys)
    fc = "mlp.fc1.weight" if keys.is_transformers else "mlp.c_fc.weight"
    try:
        vocab_size, text_width = arrays[names["text/token_embedding"]].shape
        fields = {
            "vocab_size": vocab_size,
            "text_width": text_width,
            "text_heads": _heads(text_width, {}),
            "context_length": arrays[names["text/positional_embedding"]].shape[0],
            "text_layers": _depth(arrays, f"{keys.text}{keys.layers}"),
            "text_mlp": arrays[f"{keys.text}{keys.layers}0.{fc}"].shape[0],
        }
        if "visual.layer1.0.conv1.weight" in arrays:
            fields |= _resnet_fields(arrays)
        else:
            patch = STEMS[1] if keys.is_transformers else STEMS[0]
            width, _, size, _ = arrays[patch].shape
            places = arrays[names["visual/positional_embedding"]].shape[0]
            projection = next(e.source for e in _projections(keys) if "visual" in e.target)
            axis = 0 if keys.is_transformers else 1
            fields |= {
                "embed_dim": arrays[projection].shape[axis],
                "vision_width": width,
                "vision_heads": _heads(width, HEADS),
                "patch_size": size,
                "image_size": size * round((places - 1) ** 0.5),
                "vision_layers": _depth(arrays, f"{keys.image}{keys.layers}"),
                "vision_mlp": arrays[f"{keys.image}{keys.layers}0.{fc}"].shape[0],
            }
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{where}: no CLIP network can be read from it ({error})") from error
    return CLIP(**fields, quick_gelu=quick_gelu)


def _heads(width: int, known: Mapping[int, int]) -> int:
    return known.get(width, max(1, width // HEAD_WIDTH))


def _depth(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    return len({k[len(prefix) :].split(".")[0] for k in arrays if k.startswith(prefix)})


def _resnet_fields(arrays: Mapping[str, np.ndarray]) -> dict:
    stages = [int(m[1]) for m in map(STAGE.fullmatch, arrays) if m]
    width = arrays["visual.layer1.0.conv1.weight"].shape[0]
    places, channels = arrays["visual.attnpool.positional_embedding"].shape
    return {
        "embed_dim": arrays["visual.attnpool.c_proj.weight"].shape[0],
        "vision_layers": tuple(stages.count(k) for k in range(1, max(stages) + 1)),
        "vision_width": width,
        "vision_heads": _heads(channels, {}),
        "vision_mlp": 0,
        "patch_size": 0,
        "image_size": round((places - 1) ** 0.5) << HALVINGS,
    }
