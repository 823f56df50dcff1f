"""From a source's keys to a weight directory's paths: one table a family, checked both ways."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

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
# Images and maps: PyTorch [B, C, H, W] <-> [B, H, W, C].
MAP = Layout(lambda x: x.transpose(0, 2, 3, 1), lambda x: x.transpose(0, 3, 1, 2))
# A 1x1 convolution to one channel: PyTorch [1, C, 1, 1] <-> [C].
TORCH_HEAD = Layout(lambda x: x.reshape(x.shape[1]), lambda x: x.reshape(1, -1, 1, 1))
# The same in Flax: [1, 1, C, 1] <-> [C].
FLAX_HEAD = Layout(lambda x: x.reshape(x.shape[2]), lambda x: x.reshape(1, 1, -1, 1))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array: its key in the source, its path here ("params/conv_0/kernel"), its layout.

    With `columns` it is one of several that lie side by side along the target's last axis, and
    fills [start, stop) of it.
    """

    source: str
    target: str
    layout: Layout = SAME
    columns: tuple[int, int] | None = None

    def shape(self, target: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of this entry's share of a target of that shape."""
        if self.columns is None:
            return tuple(target)
        return (*target[:-1], self.columns[1] - self.columns[0])


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A converted part.

    Attributes:
      variables: nested dicts of arrays, or one array.
      tensors: how many arrays of the source.
      parameters: how many numbers.
      dtypes: the source's types.
      ignored: source keys left out on purpose.
      kept: {source key: value} of single integers that no network reads (`num_batches_tracked`),
        which the way back needs.
    """

    variables: Any
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    ignored: tuple[str, ...]
    kept: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Section:
    """What of a source becomes one part: the keys that start with `prefix`.

    Attributes:
      entries: the table, of keys without the prefix.
      expected: {target path: shape} of the network; the table has to fill it exactly.
      prefix: what the section's keys begin with.
      ignore: regular expression of keys (without prefix) that the network has no use for.
      keep: regular expression of keys of single integers, which go into `Mapped.kept`.
    """

    entries: Sequence[Entry]
    expected: Mapping[str, tuple[int, ...]]
    prefix: str = ""
    ignore: str = NOTHING
    keep: str = NOTHING


def apply_map(
    arrays: Mapping[str, np.ndarray],
    entries: Iterable[Entry],
    expected: Mapping[str, tuple[int, ...]],
    *,
    where: str,
    ignore: str = NOTHING,
    keep: str = NOTHING,
) -> Mapped:
    """Converts one part, consuming every key; arguments as in `Section` and `apply_sections`."""
    section = Section(tuple(entries), expected, ignore=ignore, keep=keep)
    return apply_sections(arrays, {"": section}, where=where)[""]


def apply_sections(
    arrays: Mapping[str, np.ndarray], sections: Mapping[str, Section], *, where: str
) -> dict[str, Mapped]:
    """Converts the parts of one source, consuming every key.

    Args:
      arrays: the source's {key: array}.
      sections: {part: what becomes of it}.
      where: the file or files, for messages.

    Raises:
      InputError: keys missing, unused or of another shape; the message lists them all.
    """
    wrong = misfits(arrays, sections)
    if wrong:
        raise InputError(f"{where}: {len(wrong)} keys do not fit: {'; '.join(wrong)}")
    return {name: _fill(_own(arrays, section), section) for name, section in sections.items()}


def misfits(arrays: Mapping[str, np.ndarray], sections: Mapping[str, Section]) -> list[str]:
    """What `apply_sections` would refuse, a phrase each; looks at keys and shapes alone."""
    prefixes = tuple(section.prefix for section in sections.values())
    wrong = [f"unused key {key}" for key in arrays if not key.startswith(prefixes)]
    for section in sections.values():
        wrong += _section_misfits(_own(arrays, section), section)
    return wrong


def _own(arrays: Mapping[str, np.ndarray], section: Section) -> dict[str, np.ndarray]:
    """The section's arrays, without its prefix."""
    length = len(section.prefix)
    return {k[length:]: v for k, v in arrays.items() if k.startswith(section.prefix)}


def _free(arrays: Mapping[str, np.ndarray], section: Section) -> tuple[dict[str, int], list[str]]:
    """The integers to keep, and the other keys that no entry takes."""
    used = {entry.source for entry in section.entries}
    free = [k for k in arrays if k not in used]
    kept = {
        k: int(arrays[k].item())
        for k in free
        if arrays[k].size == 1 and re.fullmatch(section.keep, k)
    }
    return kept, [k for k in free if k not in kept]


def _section_misfits(arrays: Mapping[str, np.ndarray], section: Section) -> list[str]:
    prefix = section.prefix
    _, rest = _free(arrays, section)
    wrong = [f"unused key {prefix}{k}" for k in rest if not re.fullmatch(section.ignore, k)]
    used = {entry.source for entry in section.entries}
    wrong += [f"missing key {prefix}{k}" for k in sorted(used - arrays.keys())]
    width: dict[str, int] = {}
    for entry in section.entries:
        shape = section.expected.get(entry.target)
        share = None if shape is None else entry.shape(shape)
        if entry.columns is not None and share is not None:
            width[entry.target] = width.get(entry.target, 0) + share[-1]
        if entry.source not in arrays:
            continue
        array = arrays[entry.source]
        converted = _convert(array, entry.layout)
        if converted is None or converted.shape != share:
            source_shape = "unknown" if share is None else _source_shape(share, entry.layout)
            wrong.append(f"{prefix}{entry.source} is {list(array.shape)}, expected {source_shape}")
    if wrong:
        return wrong
    empty = section.expected.keys() - {entry.target for entry in section.entries}
    empty |= {path for path, columns in width.items() if columns != section.expected[path][-1]}
    return [f"nothing fills {path}" for path in sorted(empty)]


def _fill(arrays: Mapping[str, np.ndarray], section: Section) -> Mapped:
    filled: dict[str, np.ndarray] = {}
    for entry in section.entries:
        array = arrays[entry.source]
        converted = entry.layout.to_here(array)
        if entry.columns is None:
            # A view: the weights' writer lays it out, so that large files are copied once.
            filled[entry.target] = converted
            continue
        if entry.target not in filled:
            # Float32 at least: the first of the arrays may be of another type than the next.
            dtype = np.promote_types(array.dtype, np.float32)
            filled[entry.target] = np.empty(section.expected[entry.target], dtype)
        filled[entry.target][..., slice(*entry.columns)] = converted
    kept, rest = _free(arrays, section)
    return Mapped(
        unflatten_dict(filled, sep="/"),
        len(section.entries),
        sum(x.size for x in filled.values()),
        tuple(sorted({str(arrays[entry.source].dtype) for entry in section.entries})),
        tuple(rest),
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
        if entry.columns is not None:
            value = value[..., slice(*entry.columns)]
        restored[prefix + entry.source] = np.asarray(entry.layout.to_source(value), order="C")
    return restored


def _convert(array: np.ndarray, layout: Layout) -> np.ndarray | None:
    """The array in our layout, or None where its number of axes is another."""
    try:
        return layout.to_here(array)
    except (ValueError, IndexError):
        return None


def _source_shape(shape: tuple[int, ...], layout: Layout) -> list[int]:
    return list(layout.to_source(np.broadcast_to(np.zeros(()), shape)).shape)
