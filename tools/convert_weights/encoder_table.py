"""Keys of the official encoders' state dicts, and the architecture that their shapes imply.

Source: the `psp_encoders.py` of pSp and e4e, the `restyle_psp_encoders.py` and
`restyle_e4e_encoders.py` of ReStyle.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder

from .ir_se_table import read_trunk, trunk_entries
from .tensor_map import CONVOLUTION, DENSE, Entry
from .torch_modules import batch_norm, convolution, prelu

Encoder = BackboneEncoder | GradualStyleEncoder

# {form: a key that only encoders of this form have among these, the key of the first convolution}.
FORMS = {
    "pyramid": ("latlayer1.weight", "input_layer.0.weight"),
    "resnet": ("conv1.weight", "conv1.weight"),
    "backbone": ("input_layer.0.weight", "input_layer.0.weight"),
}
HEAD_CONVOLUTION = re.compile(r"styles\.(\d+)\.convs\.(\d+)\.weight")
RESNET_SHORTCUT = "body.{}.downsample.0.weight"
# The stages, from the last, that each layer of a pyramid reads.
LATERALS = {"latlayer1.weight": -2, "latlayer2.weight": -3}
RESNET_BLOCK = re.compile(r"body\.(\d+)\.conv1\.weight")


def form_of(arrays: Mapping[str, np.ndarray]) -> str | None:
    """A key of `FORMS` (backbone: IR-SE without a pyramid), or None for no encoder."""
    return next((form for form, (key, _) in FORMS.items() if key in arrays), None)


def input_channels(arrays: Mapping[str, np.ndarray]) -> int | None:
    """Channels that the first convolution reads, or None where there is none."""
    form = form_of(arrays)
    stem = None if form is None else arrays.get(FORMS[form][1])
    return None if stem is None or stem.ndim != 4 else stem.shape[1]


def read_encoder(
    arrays: Mapping[str, np.ndarray], encoder_class: type[Encoder], where: str
) -> Encoder:
    """The encoder of this class whose weights these are, from shapes and numbers of layers alone.

    Raises:
      InputError: a key that the architecture is read from is missing or has too few axes, or
        stages cannot be distinguished.
    """
    try:
        is_resnet = issubclass(encoder_class, ResNetBackboneEncoder)
        resnet: dict[str, Any] = {
            "stem": "conv1.weight",
            "block": RESNET_BLOCK,
            "shortcut": RESNET_SHORTCUT,
        }
        units, widths = read_trunk(arrays, **(resnet if is_resnet else {}))
        depths = _head_depths(arrays)
        # The heads halve the trunk's last map until one pixel is left.
        fields = {
            "num_styles": len(depths),
            "input_channels": input_channels(arrays),
            "input_size": 2 ** (depths[0] + len(units)),
            "units": units,
            "widths": widths,
            "head_width": arrays["styles.0.convs.0.weight"].shape[0],
            "w_dim": arrays["styles.0.linear.weight"].shape[0],
        }
        if issubclass(encoder_class, GradualStyleEncoder):
            _check_stages(arrays, widths)
            fields["middle_start"] = depths.count(depths[0])
            fields["fine_start"] = fields["middle_start"] + depths.count(depths[0] + 1)
    except (KeyError, IndexError, ValueError) as error:
        name = encoder_class.__name__
        raise InputError(f"{where}: no {name} can be read from it ({error})") from error
    return encoder_class(**fields)


def _check_stages(arrays: Mapping[str, np.ndarray], widths: Sequence[int]) -> None:
    """Raises ValueError where the pyramid's layers read other widths than the stages have."""
    stages = widths[1:]
    reads = {key: arrays[key].shape[1] for key in LATERALS}
    if any(-at > len(stages) or reads[key] != stages[at] for key, at in LATERALS.items()):
        raise ValueError(
            f"runs of blocks of {', '.join(map(str, stages))} channels, its pyramid reads "
            f"{reads['latlayer2.weight']} and {reads['latlayer1.weight']}; stages of one width "
            "beside each other cannot be told apart by their shapes, opts/encoder_architecture "
            "would have to say them"
        )


def encoder_entries(encoder: Encoder) -> list[Entry]:
    """Keys of one encoder, without a prefix."""
    count, widths = encoder.num_styles, encoder.widths
    if isinstance(encoder, ResNetBackboneEncoder):
        entries = _resnet_entries(encoder.units, widths)
    else:
        entries = trunk_entries(encoder.units, widths)
    depth = int(np.log2(encoder.input_size)) - len(encoder.units)
    if not isinstance(encoder, GradualStyleEncoder):
        return entries + _head_entries(encoder, "heads", depth, range(count))
    entries += convolution("latlayer1", "lateral_middle", bias=True)
    entries += convolution("latlayer2", "lateral_fine", bias=True)
    starts = [min(s, count) for s in (0, encoder.middle_start, encoder.fine_start, count)]
    for i, name in enumerate(("coarse", "middle", "fine")):
        entries += _head_entries(encoder, name, depth + i, range(starts[i], starts[i + 1]))
    return entries


def _head_entries(encoder: Encoder, name: str, depth: int, styles: range) -> list[Entry]:
    """`StyleHeads` of these styles: the heads lie side by side in one array a layer."""
    target, entries = f"params/{name}", []
    for i, style in enumerate(styles):
        inner = (i * encoder.head_width, (i + 1) * encoder.head_width)
        outer = (i * encoder.w_dim, (i + 1) * encoder.w_dim)
        source = f"styles.{style}"
        for k in range(depth):
            here = f"{target}/conv_{k}"
            entries += [
                Entry(f"{source}.convs.{2 * k}.weight", f"{here}_kernel", CONVOLUTION, inner),
                Entry(f"{source}.convs.{2 * k}.bias", f"{here}_bias", columns=inner),
            ]
        entries += [
            Entry(f"{source}.linear.weight", f"{target}/dense_kernel", DENSE, outer),
            Entry(f"{source}.linear.bias", f"{target}/dense_bias", columns=outer),
        ]
    return entries


def _resnet_entries(units: Sequence[int], widths: Sequence[int]) -> list[Entry]:
    """Entries of a `ResNetTrunk` named "trunk"."""
    entries = convolution("conv1", "trunk/stem_conv")
    entries += batch_norm("bn1", "trunk/stem_norm") + prelu("relu", "trunk/stem_prelu")
    block = 0
    for stage, count in enumerate(units):
        for unit in range(count):
            source, target = f"body.{block}", f"trunk/block_{block}"
            for k in (1, 2):
                entries += convolution(f"{source}.conv{k}", f"{target}/conv_{k}")
                entries += batch_norm(f"{source}.bn{k}", f"{target}/norm_{k}")
            if unit == 0 and (stage > 0 or widths[0] != widths[1]):
                entries += convolution(f"{source}.downsample.0", f"{target}/shortcut_conv")
                entries += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
            block += 1
    return entries


def _head_depths(arrays: Mapping[str, np.ndarray]) -> list[int]:
    """Convolutions of every style head; ReLUs take the odd numbers among them."""
    found = [(int(m[1]), int(m[2])) for m in map(HEAD_CONVOLUTION.fullmatch, arrays) if m]
    count = 1 + max(style for style, _ in found)
    return [1 + max((k for s, k in found if s == i), default=0) // 2 for i in range(count)]
