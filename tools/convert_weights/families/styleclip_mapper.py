"""StyleCLIP's mappers: official files, with their generator beside, and stripped ones without.

A file of the training is {state_dict: `mapper.*` and `decoder.*`, opts}; others hold the mapper
alone, with `mapper.` before its keys or without.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.styleclip_mapper import LEVELS, SINGLE, StyleMapper, StyleSpaceMapper
from interestyle_jax.models.stylegan2 import Generator, num_styles
from interestyle_jax.weights import Weights

from ..conversion import Conversion, Family, shapes
from ..source_file import SourceFile
from ..tensor_map import Entry, Section, apply_sections
from ..torch_modules import dense, state_dict

SECTION = "state_dict/"
MAPPER, DECODER = "mapper.", "decoder."
# Official names; "course" is their spelling.
SOURCES = {
    "coarse": "course_mapping",
    "medium": "medium_mapping",
    "fine": "fine_mapping",
    SINGLE: "mapping",
}
DEPTH = 4
LAYER = re.compile(r"mapper_(\d+)\.mapping\.1\.weight")
FIRST = "mapping.1.weight"


def level_entries(source: str, target: str) -> list[Entry]:
    """One level's dense layers; the official one begins with a pixel norm, number 0."""
    return [
        entry
        for i in range(DEPTH)
        for entry in dense(f"{source}.mapping.{i + 1}", f"{target}/dense_{i}")
    ]


def entries(mapper: StyleMapper | StyleSpaceMapper) -> list[Entry]:
    """The table of a mapper, of keys without "mapper."."""
    if isinstance(mapper, StyleSpaceMapper):
        return [e for i in mapper.mapped for e in level_entries(f"mapper_{i}", f"layer_{i}")]
    return [e for level in mapper.levels for e in level_entries(SOURCES[level], level)]


class StyleClipMapperFamily(Family):
    """`styleclip_mapper`."""

    name = "styleclip_mapper"
    licence = "StyleCLIP's mappers: MIT, beside the terms of the generator and of CLIP"
    options = ("levels",)

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the first dense layer of some level."""
        return len(sources) == 1 and _kind(_split(sources[0])[0]) is not None

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`."""
        return self.convert_with(sources)

    def convert_with(self, sources: Sequence[SourceFile], **options: Any) -> Conversion:
        """See `Family.convert_with`; `levels` are names of `LEVELS` by commas."""
        where = " + ".join(str(s.path) for s in sources)
        if len(sources) != 1:
            raise InputError(f"{where}: {len(sources)} files, expected one mapper")
        mapper_arrays, decoder, left_out = _split(sources[0])
        rows = _rows(decoder, sources[0])
        mapper = read_architecture(mapper_arrays, rows, options.get("levels"), where=where)
        architecture = registry.describe(mapper)
        sections = {"mapper": Section(entries(mapper), shapes(architecture))}
        parts = apply_sections(mapper_arrays, sections, where=where)
        architectures = {"mapper": architecture}
        opts = sources[0].content.get("opts")
        extra = {"opts": opts} if isinstance(opts, Mapping) else {}
        if decoder:
            notes = ("the generator beside the mapper was left out; convert its own file",)
        else:
            notes = (f"no generator in the file, the mapper is taken for one of {rows} rows",)
        return Conversion(parts, architectures, extra, left_out, notes)

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The file without its generator, which the mapper's weights do not hold."""
        mapper, variables = weights.part("mapper")
        arrays = state_dict(variables, entries(mapper), {})
        content = {"state_dict": {MAPPER + key: value for key, value in arrays.items()}}
        opts = weights.metadata["extra"].get("opts")
        return content | ({"opts": opts} if opts else {})


def read_architecture(
    arrays: Mapping[str, np.ndarray], rows: int, levels: str | None, *, where: str
) -> StyleMapper | StyleSpaceMapper:
    """The mapper whose tensors these are.

    Args:
      arrays: its state dict, without "mapper.".
      rows: L of the generator that it was made for.
      levels: those that the user says it has, by commas; None: all.
      where: the file, for messages.

    Raises:
      InputError: another mapper, or levels that differ from what the user says.
    """
    kind = _kind(arrays)
    if kind is None:
        raise InputError(f"{where}: no StyleCLIP mapper, expected keys such as course_mapping.*")
    if kind == "styles":
        mapped = tuple(sorted(int(m[1]) for m in map(LAYER.fullmatch, arrays) if m))
        return StyleSpaceMapper(_channels(arrays, mapped, where), mapped)
    if kind == SINGLE:
        return StyleMapper(rows, _width(arrays, f"mapping.{FIRST}", where), (SINGLE,))
    found = tuple(level for level in LEVELS if f"{SOURCES[level]}.{FIRST}" in arrays)
    asked = LEVELS if levels is None else tuple(levels.split(","))
    unknown = [level for level in asked if level not in LEVELS]
    if unknown:
        raise InputError(f"--levels: {unknown[0]!r}, expected some of {','.join(LEVELS)}")
    missing = [level for level in asked if level not in found]
    if missing:
        raise InputError(
            f"{where}: the mapper has no {' and no '.join(missing)} level, where it would change "
            f"nothing; if that is meant, pass --levels={','.join(found)}"
        )
    more = [level for level in found if level not in asked]
    if more:
        raise InputError(f"--levels: {levels}, but {where} has a {more[0]} level too")
    return StyleMapper(rows, _width(arrays, f"{SOURCES[found[0]]}.{FIRST}", where), found)


def _width(arrays: Mapping[str, np.ndarray], key: str, where: str) -> int:
    array = arrays[key]
    if array.ndim != 2:
        raise InputError(f"{where}: {key} is {list(array.shape)}, expected [D, D]")
    return array.shape[1]


def _channels(
    arrays: Mapping[str, np.ndarray], mapped: tuple[int, ...], where: str
) -> tuple[int, ...]:
    """Channels of every layer, ToRGB among them, which mappers leave out."""
    widths = {i: _width(arrays, f"mapper_{i}.{FIRST}", where) for i in mapped}
    # A ToRGB reads the same map as the convolution behind it; the last one has none, and reads one
    # as wide as that before it.
    layers = range(mapped[-1] + 2)
    channels = [widths.get(i, widths.get(i + 1, widths.get(i - 1))) for i in layers]
    if None in channels:
        raise InputError(f"{where}: mappers of the layers {mapped}, expected all but ToRGB")
    return tuple(channels)


def _split(source: SourceFile) -> tuple[dict, dict, tuple[str, ...]]:
    """The mapper's tensors, the decoder's, and the keys of the decoder as they stand."""
    arrays = {k.removeprefix(SECTION): (k, v) for k, v in source.arrays().items()}
    decoder = {k.removeprefix(DECODER): v for k, (_, v) in arrays.items() if k.startswith(DECODER)}
    left_out = tuple(name for k, (name, _) in arrays.items() if k.startswith(DECODER))
    own = {k.removeprefix(MAPPER): v for k, (_, v) in arrays.items() if not k.startswith(DECODER)}
    return own, decoder, left_out


def _kind(arrays: Mapping[str, np.ndarray]) -> str | None:
    if any(f"{SOURCES[level]}.{FIRST}" in arrays for level in LEVELS):
        return "levels"
    if f"mapping.{FIRST}" in arrays:
        return SINGLE
    return "styles" if any(map(LAYER.fullmatch, arrays)) else None


def _rows(decoder: Mapping[str, np.ndarray], source: SourceFile) -> int:
    """L of the generator beside the mapper, or by the file's options, or of 1024 pixels."""
    blocks = len({k.split(".")[1] for k in decoder if k.startswith("to_rgbs.")})
    if blocks:
        return 2 * blocks + 2
    opts = source.content.get("opts")
    size = opts.get("stylegan_size") if isinstance(opts, Mapping) else None
    return num_styles(size if isinstance(size, int) else Generator().resolution)


FAMILIES = (StyleClipMapperFamily(),)
