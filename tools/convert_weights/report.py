"""The table printed after a conversion."""

import re
from collections.abc import Sequence

import numpy as np
from flax.traverse_util import flatten_dict

from .conversion import Conversion
from .progress import tracked
from .source_file import SourceFile

COLUMNS = ("part", "type", "tensors", "parameters", "source dtype", "ignored keys")
# Names of ignored keys printed before the rest is only counted.
LISTED = 8


def format_report(
    family: str, sources: Sequence[SourceFile], conversion: Conversion, *, dtype: str = "float32"
) -> str:
    """Sources with their SHA-256, a line a part, what was left out, casts, values not finite.

    `dtype` is the storage type. Ignored keys that differ in numbers alone are counted as one.
    """
    rows = [COLUMNS]
    for name, part in conversion.parts.items():
        kind = conversion.architectures.get(name, {}).get("type", "array")
        counts = (f"{part.tensors:,}", f"{part.parameters:,}")
        rows.append((name, kind, *counts, ", ".join(part.dtypes), str(len(part.ignored))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [f"family {family}"]
    for source in sources:
        lines.append(f"source {source.path}  sha256 {source.sha256}")
        lines += [f"note: {note}" for note in source.notes]
    lines += ["  ".join(x.ljust(w) for x, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    if conversion.ignored:
        lines.append(f"ignored: {summary(conversion.ignored)}")
    for name, part in conversion.parts.items():
        if part.ignored:
            lines.append(f"ignored in {name}: {summary(part.ignored)}")
    lines += [f"note: {note}" for note in conversion.notes]
    if "w_avg" in conversion.extra:
        drawn = conversion.extra["w_avg"]
        lines.append(
            f"note: no mean latent in the source, computed from {drawn['samples']:,} samples "
            f"(seed {drawn['seed']})"
        )
    if "noise" in conversion.extra:
        drawn = conversion.extra["noise"]
        unused = "" if drawn.get("used", True) else ", with strength 0: the network has no noise"
        lines.append(f"note: no noise buffers in the source, drawn (seed {drawn['seed']}){unused}")
    lines += _casts(conversion, dtype) + _not_finite(conversion)
    return "\n".join(lines)


def summary(keys: Sequence[str]) -> str:
    """The first keys and how many more; keys that differ in numbers alone count as one."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(re.sub(r"\d+", "*", key), []).append(key)
    names = [g[0] if len(g) == 1 else f"{name} ({len(g)})" for name, g in groups.items()]
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _casts(conversion: Conversion, dtype: str) -> list[str]:
    lines = []
    for name, part in conversion.parts.items():
        other = [d for d in part.dtypes if "float" in d and d != dtype]
        if other:
            lines.append(f"note: {name} is stored as {dtype}, the source is {', '.join(other)}")
    return lines


def _not_finite(conversion: Conversion) -> list[str]:
    lines = []
    arrays = flatten_dict({n: p.variables for n, p in conversion.parts.items()}, sep="/")
    for path, array in tracked(arrays.items(), "check", total=len(arrays)):
        count = array.size - np.count_nonzero(np.isfinite(array))
        if count:
            kind = "NaN" if np.isnan(array).any() else "infinite"
            lines.append(f"warning: {path} holds {count:,} values that are not finite ({kind})")
    return lines
