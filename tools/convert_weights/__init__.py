"""Checkpoints of other projects, converted to weight directories.

`python -m tools.convert_weights SOURCE [SOURCE ...] OUT [--family=auto]`, from the repository root.
"""

from collections.abc import Sequence
from pathlib import Path

from interestyle_jax.errors import InputError
from interestyle_jax.weights import check_destination, save_weights
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.report import format_report
from tools.convert_weights.source_file import SourceFile, read_source


def convert(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    family: str = "auto",
    dtype: str = "float32",
    force: bool = False,
) -> str:
    """Converts checkpoint files into the weight directory `out` and returns the report.

    Args:
      sources: one file, or several that belong together (trunk and heads of LPIPS).
      out: the directory to write.
      family: a name of `FAMILIES`, or "auto" to recognise it by the keys.
      dtype: storage type, "float32", "float16" or "bfloat16".
      force: replace an existing weight directory.

    Raises:
      InputError: nothing is written then. See `read_source`, `apply_map` and `save_weights`.
    """
    check_destination(out, force)
    files = [read_source(path) for path in sources]
    kind = FAMILIES[recognise(files)] if family == "auto" else _by_name(family)
    conversion = kind.convert(files)
    report = format_report(kind.name, files, conversion)
    save_weights(
        out,
        {name: part.variables for name, part in conversion.parts.items()},
        family=kind.name,
        architectures=conversion.architectures,
        licence=kind.licence,
        source={
            "file": ", ".join(f.path.name for f in files),
            "sha256": ", ".join(f.sha256 for f in files),
        },
        dtype=dtype,
        force=force,
        extra=conversion.extra | {"kept": {n: p.kept for n, p in conversion.parts.items()}},
    )
    return report


def recognise(files: Sequence[SourceFile]) -> str:
    """The one family whose keys these files have.

    Raises:
      InputError: none or several; the message lists some keys and the known families.
    """
    keys = frozenset(key for file in files for key in file.arrays())
    found = [name for name, family in FAMILIES.items() if family.matches(keys)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(f.path) for f in files)
    what = f"fits several families ({', '.join(found)})" if found else "not a known checkpoint"
    raise InputError(
        f"{names}: {what}; first keys: {', '.join(sorted(keys)[:4]) or 'none'}; "
        f"known families: {', '.join(FAMILIES)}"
    )


def _by_name(family: str):
    if family not in FAMILIES:
        raise InputError(f"--family: {family!r}, expected auto or one of {', '.join(FAMILIES)}")
    return FAMILIES[family]
