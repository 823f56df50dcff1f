"""StyleCLIP's global directions: "fs3.npy" and "S_mean_std".

The one is the effect of each channel of S on CLIP's feature, the other the statistics of S that
its script keeps: a pickle [means, deviations] without a suffix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError

from ..conversion import Conversion, Family
from ..source_file import BARE, SourceFile
from ..tensor_map import Mapped

PARTS = ("s_mean", "s_std")


class StyleClipGlobalFamily(Family):
    """`styleclip_global`."""

    name = "styleclip_global"
    licence = "StyleCLIP's files: MIT, beside the terms of the generator and of CLIP"

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By two files, an array of rows and lists of means and deviations."""
        return len(sources) == 2 and all(part is not None for part in _sorted(sources))

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """See `Family.convert`."""
        where = " + ".join(str(s.path) for s in sources)
        fs3, statistics = _sorted(sources)
        if len(sources) != 2 or fs3 is None or statistics is None:
            raise InputError(
                f"{where}: expected two files, fs3.npy [channels, features] and S_mean_std (means "
                "and deviations, an array a layer)"
            )
        if not (np.isfinite(fs3).all() and all(np.isfinite(x).all() for x in statistics.values())):
            raise InputError(f"{where}: holds values that are not finite, expected numbers")
        channels = [statistics[f"1/{i}"].size for i in range(len(statistics) // 2)]
        if len(fs3) > sum(channels):
            raise InputError(
                f"{where}: fs3 has {len(fs3)} rows, the statistics {sum(channels)} channels; "
                "expected files of one generator"
            )
        parts = {"fs3": _part(fs3, fs3)}
        for k, part in enumerate(PARTS):
            tree = {f"layer_{i}": statistics[f"{k}/{i}"].reshape(-1) for i in range(len(channels))}
            parts[part] = _part(tree, *tree.values())
        return Conversion(parts, {})


def _sorted(
    sources: Sequence[SourceFile],
) -> tuple[np.ndarray | None, dict[str, np.ndarray] | None]:
    """fs3, and {"0/layer": means, "1/layer": deviations}; None for what is not there."""
    fs3 = statistics = None
    for source in sources:
        array = source.content.get(BARE)
        if array is not None:
            is_effects = array.ndim == 2 and array.dtype.kind == "f"
            fs3 = array if is_effects else fs3
            continue
        arrays = source.arrays()
        count = len(arrays) // 2
        names = {f"{k}/{i}" for k in (0, 1) for i in range(count)}
        if count and set(arrays) == names and _alike(arrays, count):
            statistics = arrays
    return fs3, statistics


def _alike(arrays: dict[str, np.ndarray], count: int) -> bool:
    pairs = [(arrays[f"0/{i}"], arrays[f"1/{i}"]) for i in range(count)]
    return all(a.size == b.size and a.dtype.kind == "f" for a, b in pairs)


def _part(variables: Any, *arrays: np.ndarray) -> Mapped:
    return Mapped(
        variables,
        len(arrays),
        sum(x.size for x in arrays),
        tuple(sorted({str(x.dtype) for x in arrays})),
        (),
    )


FAMILIES = (StyleClipGlobalFamily(),)
