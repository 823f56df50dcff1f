"""The table printed after a conversion."""

from collections.abc import Sequence

import numpy as np
from flax.traverse_util import flatten_dict

from tools.convert_weights.conversion import Conversion
from tools.convert_weights.source_file import SourceFile

COLUMNS = ("part", "type", "tensors", "parameters", "source dtype", "ignored keys")


def format_report(family: str, sources: Sequence[SourceFile], conversion: Conversion) -> str:
    """Sources with their SHA-256, a line a part, and warnings of values that are not finite."""
    rows = [COLUMNS]
    for name, part in conversion.parts.items():
        kind = conversion.architectures.get(name, {}).get("type", "array")
        counts = (f"{part.tensors:,}", f"{part.parameters:,}")
        rows.append((name, kind, *counts, ", ".join(part.dtypes), str(len(part.ignored))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [f"family {family}"]
    lines += [f"source {s.path}  sha256 {s.sha256}" for s in sources]
    lines += ["  ".join(x.ljust(w) for x, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    for name, part in conversion.parts.items():
        if part.ignored:
            lines.append(f"ignored in {name}: {', '.join(part.ignored)}")
        for path, array in flatten_dict({name: part.variables}, sep="/").items():
            if not np.all(np.isfinite(array)):
                lines.append(f"warning: {path} holds values that are not finite")
    return "\n".join(lines)
