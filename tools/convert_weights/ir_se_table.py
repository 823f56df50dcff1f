"""Keys of the official IR-SE trunk, which ArcFace, CurricularFace and the encoders share.

Source: `model_irse.py`, `helpers.py`.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from .tensor_map import Entry
from .torch_modules import (
    POINTWISE,
    batch_norm,
    convolution,
    dense,
    prelu,
)

BLOCK = re.compile(r"body\.(\d+)\.res_layer\.1\.weight")


def trunk_entries(
    units: Sequence[int],
    widths: Sequence[int],
    *,
    squeeze_excitation: bool = True,
    target: str = "trunk",
) -> list[Entry]:
    """Entries of an `IRTrunk` with these fields; keys begin with "input_layer." or "body."."""
    entries = convolution("input_layer.0", f"{target}/stem_conv")
    entries += batch_norm("input_layer.1", f"{target}/stem_norm")
    entries += prelu("input_layer.2", f"{target}/stem_prelu")
    block, before = 0, widths[0]
    for count, width in zip(units, widths[1:], strict=True):
        for _ in range(count):
            here, there = f"{target}/block_{block}", f"body.{block}"
            if width != before:
                entries += convolution(f"{there}.shortcut_layer.0", f"{here}/shortcut_conv")
                entries += batch_norm(f"{there}.shortcut_layer.1", f"{here}/shortcut_norm")
            entries += batch_norm(f"{there}.res_layer.0", f"{here}/norm_1")
            entries += convolution(f"{there}.res_layer.1", f"{here}/conv_1")
            entries += prelu(f"{there}.res_layer.2", f"{here}/prelu")
            entries += convolution(f"{there}.res_layer.3", f"{here}/conv_2")
            entries += batch_norm(f"{there}.res_layer.4", f"{here}/norm_2")
            if squeeze_excitation:
                gate = f"{here}/squeeze_excitation"
                for k, layer in enumerate(("reduce", "expand"), 1):
                    source = f"{there}.res_layer.5.fc{k}"
                    entries += dense(source, f"{gate}/{layer}", layout=POINTWISE, bias=False)
            block, before = block + 1, width
    return entries


def read_trunk(
    arrays: Mapping[str, np.ndarray],
    *,
    stem: str = "input_layer.0.weight",
    block: re.Pattern[str] = BLOCK,
    shortcut: str | None = None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`units` and `widths` of the trunk whose keys these are, from the shapes of its blocks.

    A stage is a run of blocks of one width. IR-SE stages of one width beside each other, which no
    official trunk has, cannot be distinguished: their shortcuts have no weights.

    Args:
      arrays: {key: array} without a prefix.
      stem: the first convolution's key; the default is IR-SE's, as `block`'s.
      block: matches the key of a block's first convolution; its group is the block's number.
      shortcut: the key, by the block's number, of a shortcut that every stage but the first begins
        with, or None where shortcuts go with the widths.

    Raises:
      KeyError, ValueError: no stem, no blocks, or blocks whose numbers have gaps.
    """
    found = {int(m[1]): arrays[m[0]].shape[0] for m in map(block.fullmatch, arrays) if m}
    if sorted(found) != list(range(len(found))) or not found:
        raise ValueError(f"blocks {sorted(found)}, expected 0, 1, 2, ...")
    units: list[int] = []
    widths = [arrays[stem].shape[0]]
    for i in range(len(found)):
        begins = shortcut is not None and shortcut.format(i) in arrays
        if not units or begins or found[i] != widths[-1]:
            units.append(0)
            widths.append(found[i])
        units[-1] += 1
    return tuple(units), tuple(widths)
