"""From a source's keys to a weight directory's paths: one table a family, checked both ways."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array's axes lie in the source (`to_here`) and back (`to_source`)."""

    to_here: Callable[[np.ndarray], np.ndarray]
    to_source: Callable[[np.ndarray], np.ndarray]


NOTHING = r"(?!)"
SAME = Layout(lambda x: x, lambda x: x)
# PyTorch convolution [O, I, h, w] <-> Flax [h, w, I, O].
CONVOLUTION = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# PyTorch dense [O, I] <-> Flax [I, O].
DENSE = Layout(lambda x: x.transpose(1, 0), lambda x: x.transpose(1, 0))
# Pictures and maps: PyTorch [B, C, H, W] <-> [B, H, W, C].
MAP = Layout(lambda x: x.transpose(0, 2, 3, 1), lambda x: x.transpose(0, 3, 1, 2))
# A 1x1 convolution to one channel: PyTorch [1, C, 1, 1] <-> [C].
TORCH_HEAD = Layout(lambda x: x.reshape(x.shape[1]), lambda x: x.reshape(1, -1, 1, 1))
# The same in Flax: [1, 1, C, 1] <-> [C].
FLAX_HEAD = Layout(lambda x: x.reshape(x.shape[2]), lambda x: x.reshape(1, 1, -1, 1))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array: its key in the source, its path here ("params/conv_0/kernel"), its layout."""

    source: str
    target: str
    layout: Layout = SAME


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A converted part.

    Attributes:
      variables: nested dicts of arrays, or one array.
      tensors: how many arrays.
      parameters: how many numbers.
      dtypes: the source's types.
      ignored: source keys left out on purpose.
      kept: {source key: value} of single integers that no network reads (`num_batches_tracked`),
        which the way back needs.
    """

    variables: dict[str, Any] | np.ndarray
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    ignored: tuple[str, ...]
    kept: dict[str, int] = dataclasses.field(default_factory=dict)


def apply_map(
    arrays: Mapping[str, np.ndarray],
    entries: Iterable[Entry],
    expected: Mapping[str, tuple[int, ...]],
    *,
    where: str,
    ignore: str = NOTHING,
    keep: str = NOTHING,
) -> Mapped:
    """Converts one part, consuming every key.

    Args:
      arrays: the source's {key: array}.
      entries: the family's table.
      expected: {target path: shape} of the network; the table has to fill it exactly.
      where: the file or files, for messages.
      ignore: regular expression of keys that the network has no use for.
      keep: regular expression of keys of single integers, which go into `Mapped.kept`.

    Raises:
      InputError: keys missing, unused or of another shape; the message lists them all.
    """
    entries = list(entries)
    used = {entry.source for entry in entries}
    free = [k for k in arrays if k not in used]
    kept = {k: int(arrays[k]) for k in free if re.fullmatch(keep, k) and arrays[k].size == 1}
    ignored = tuple(k for k in free if k not in kept and re.fullmatch(ignore, k))
    wrong = [f"unused key {k}" for k in free if k not in kept and k not in ignored]
    wrong += [f"missing key {k}" for k in sorted(used - arrays.keys())]
    variables: dict[str, Any] = {}
    filled = {}
    for entry in entries:
        if entry.source not in arrays:
            continue
        array = arrays[entry.source]
        shape = expected.get(entry.target)
        converted = _convert(array, entry.layout)
        if shape is None or converted is None or converted.shape != tuple(shape):
            source_shape = "unknown" if shape is None else _source_shape(shape, entry.layout)
            wrong.append(f"{entry.source} is {list(array.shape)}, expected {source_shape}")
            continue
        filled[entry.target] = converted
        *folders, leaf = entry.target.split("/")
        node = variables
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.asarray(converted, order="C")
    if not wrong:
        wrong = [f"nothing fills {path}" for path in sorted(expected.keys() - filled.keys())]
    if wrong:
        raise InputError(f"{where}: {len(wrong)} keys do not fit: {'; '.join(wrong)}")
    return Mapped(
        variables,
        len(filled),
        sum(x.size for x in filled.values()),
        tuple(sorted({str(arrays[e.source].dtype) for e in entries})),
        ignored,
        kept,
    )


def restore_map(
    variables: Mapping[str, Any], entries: Iterable[Entry], *, prefix: str = ""
) -> dict[str, np.ndarray]:
    """The inverse of `apply_map`: {prefix + source key: array in the source's layout}.

    Args:
      variables: a part's nested dicts of arrays.
      entries: the table that `apply_map` took.
      prefix: put before every key.

    Raises:
      KeyError: the variables lack a path of the table.
    """
    restored = {}
    for entry in entries:
        value: Any = variables
        for name in entry.target.split("/"):
            value = value[name]
        restored[prefix + entry.source] = np.ascontiguousarray(entry.layout.to_source(value))
    return restored


def _convert(array: np.ndarray, layout: Layout) -> np.ndarray | None:
    """The array in our layout, or None where its number of axes is another."""
    try:
        return layout.to_here(array)
    except (ValueError, IndexError):
        return None


def _source_shape(shape: tuple[int, ...], layout: Layout) -> list[int]:
    return list(layout.to_source(np.broadcast_to(np.zeros(()), shape)).shape)
