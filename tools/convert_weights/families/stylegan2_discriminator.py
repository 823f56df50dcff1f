"""The table of rosinality's StyleGAN2 discriminator (section `d` of his training files)."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.resample import FIR

from ..tensor_map import CONVOLUTION, DENSE, Entry, Layout, restore_map

# A dense layer over a 4x4 map: PyTorch [O, C 4 4] reads channel by channel, the form here
# [4 4 C, O] pixel by pixel.
DENSE_OF_MAP = Layout(
    lambda x: x.reshape(len(x), -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, len(x)),
    lambda x: x.reshape(4, 4, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
)


def _levels(resolution: int) -> int:
    return int(math.log2(resolution)) - 2


def entries(resolution: int) -> list[Entry]:
    """Keys of one discriminator, without a prefix."""

    def layer(weight: str, bias: str, target: str, layout: Layout = CONVOLUTION) -> list[Entry]:
        return [
            Entry(weight, f"params/{target}/kernel", layout),
            Entry(bias, f"params/{target}/bias"),
        ]

    table = layer("convs.0.0.weight", "convs.0.1.bias", "from_rgb")
    for i in range(1, _levels(resolution) + 1):
        block, source = f"block_{resolution >> i}", f"convs.{i}"
        table += layer(f"{source}.conv1.0.weight", f"{source}.conv1.1.bias", f"{block}/conv_0")
        table += layer(f"{source}.conv2.1.weight", f"{source}.conv2.2.bias", f"{block}/conv_1")
        table.append(Entry(f"{source}.skip.1.weight", f"params/{block}/skip/kernel", CONVOLUTION))
    table += layer("final_conv.0.weight", "final_conv.1.bias", "conv_4")
    table += layer("final_linear.0.weight", "final_linear.0.bias", "dense_4", DENSE_OF_MAP)
    return table + layer("final_linear.1.weight", "final_linear.1.bias", "logit", DENSE)


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> Discriminator:
    """The discriminator whose weights these are, from shapes and the number of layers alone.

    Raises:
      InputError: a key that the architecture is read from is missing or has too few axes.
    """
    blocks = sum(1 for k in arrays if re.fullmatch(r"convs\.\d+\.skip\.1\.weight", k))
    resolution = 4 << blocks
    try:
        widths = {resolution: arrays["convs.0.0.weight"].shape[0]}
        for i in range(1, blocks + 1):
            widths[resolution >> i] = arrays[f"convs.{i}.skip.1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise InputError(
            f"{where}: no StyleGAN2 discriminator can be read from it ({error})"
        ) from error
    return Discriminator(
        resolution=resolution,
        channel_base=max(size * width for size, width in widths.items()),
        channel_max=max(widths.values()),
    )


def restore(variables: Mapping[str, Any], architecture: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of one discriminator, FIR buffers included."""
    resolution = architecture["resolution"]
    state = restore_map(variables, entries(resolution))
    fir = np.outer(FIR, FIR).astype(np.float32)
    for i in range(1, _levels(resolution) + 1):
        state[f"convs.{i}.conv2.0.kernel"] = fir
        state[f"convs.{i}.skip.0.kernel"] = fir
    return state
