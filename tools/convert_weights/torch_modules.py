"""Entries of PyTorch's standard modules: a state dict's keys against a Flax module's variables.

`source` is the module's key in the state dict ("body.0.res_layer.1"), `target` its path below the
collections here ("trunk/block_0/conv_1").
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .tensor_map import CONVOLUTION, DENSE, SAME, Entry, Layout, restore_map

# BatchNorm's count of batches, which no network reads and old files lack.
COUNTERS = r"(.*\.)?num_batches_tracked"
# A 1x1 convolution [O, I, 1, 1] <-> a dense kernel [I, O].
POINTWISE = Layout(
    lambda x: x.reshape(x.shape[:2]).transpose(1, 0), lambda x: x.transpose(1, 0)[:, :, None, None]
)


def convolution(source: str, target: str, *, bias: bool = False) -> list[Entry]:
    """A convolution's kernel, and its bias where it has one."""
    entries = [Entry(f"{source}.weight", f"params/{target}/kernel", CONVOLUTION)]
    return entries + ([Entry(f"{source}.bias", f"params/{target}/bias")] if bias else [])


def dense(source: str, target: str, *, layout: Layout = DENSE, bias: bool = True) -> list[Entry]:
    """A dense layer's kernel, and its bias where it has one."""
    entries = [Entry(f"{source}.weight", f"params/{target}/kernel", layout)]
    return entries + ([Entry(f"{source}.bias", f"params/{target}/bias")] if bias else [])


def batch_norm(source: str, target: str, *, affine: bool = True) -> list[Entry]:
    """A BatchNorm's statistics, and its scale and bias where it learns them."""
    entries = [
        Entry(f"{source}.running_mean", f"batch_stats/{target}/mean"),
        Entry(f"{source}.running_var", f"batch_stats/{target}/var"),
    ]
    if affine:
        entries += [
            Entry(f"{source}.weight", f"params/{target}/scale"),
            Entry(f"{source}.bias", f"params/{target}/bias"),
        ]
    return entries


def prelu(source: str, target: str) -> list[Entry]:
    """A PReLU's slopes, one a channel."""
    return [Entry(f"{source}.weight", f"params/{target}/slope", SAME)]


def flattened_dense(axes: tuple[int, int, int], shape: tuple[int, int, int]) -> Layout:
    """Layout of a dense kernel that reads a flattened map: [O, I] <-> [H * W * C, O].

    Args:
      axes: for H, W and C here, which axis of the source's map it is; (1, 2, 0) for one flattened
        as C, H, W, and (2, 1, 0) for C, W, H.
      shape: the source's map, in its order.
    """
    order = [axes.index(i) for i in range(3)]
    here = [shape[i] for i in axes]
    return Layout(
        lambda x: (
            x.reshape(x.shape[0], *shape)
            .transpose(*(i + 1 for i in axes), 0)
            .reshape(-1, x.shape[0])
        ),
        lambda x: x.reshape(*here, x.shape[1]).transpose(3, *order).reshape(x.shape[1], x.shape[0]),
    )


def state_dict(
    variables: Mapping[str, Any], entries: list[Entry], counters: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The state dict of one network: its arrays, and the counters that its file had."""
    arrays = restore_map(variables, entries)
    return arrays | {key: np.asarray(value, np.int64) for key, value in counters.items()}
