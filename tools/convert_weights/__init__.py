"""Checkpoints of other projects, converted to weight directories.

`interestyle convert SOURCE [SOURCE ...] OUT [--family=auto]`. Installed, this package is
`interestyle_jax.convert_weights`, in the repository `tools.convert_weights` too: it imports itself
relatively.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.weights import check_destination, save_weights

from . import unsupported
from .conversion import Conversion
from .families import FAMILIES, by_name
from .progress import directory_bar
from .report import format_report
from .source_file import SourceFile, keys, read_source
from .verify import verify

# Parts that belong together, and what a file with only these would be called.
TOGETHER = {"generator": ("w_avg",)}
PART_FAMILIES = {"generator": "stylegan2"}


def convert(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    family: str = "auto",
    part: str | None = None,
    dtype: str = "float32",
    force: bool = False,
    check: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Converts checkpoint files into the weight directory `out` and returns the report.

    Args:
      sources: one file, or several that belong together (trunk and heads of LPIPS).
      out: the directory to write.
      family: a name of `FAMILIES`, or "auto" to recognise it by the keys.
      part: keep only this part, e.g. "encoder", or None for all; with "generator" its `w_avg`
        stays, and both are what a "stylegan2" file would give.
      dtype: storage type, "float32", "float16" or "bfloat16".
      force: replace an existing weight directory.
      check: verify the written directory, see `verify.verify`; not with `part`, as the official
        layout has all parts.
      options: what the file does not say, for the families that ask for it (`Family.options`):
        {"activation": "gelu"}; None values are not given.

    Raises:
      InputError: nothing is written then, unless the check of what was written fails. See
        `read_source`, `apply_map` and `save_weights`.
    """
    if check and part is not None:
        raise InputError("--verify: not with --part, whose result has no official layout")
    check_destination(out, force)
    files = [read_source(path) for path in sources]
    unsupported.check(files)
    kind = FAMILIES[recognise(files)] if family == "auto" else by_name(family)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name in given:
        if name not in kind.options:
            raise InputError(f"--{name}: not for family {kind.name}, whose files say all")
    conversion = kind.convert_with(files, **given)
    written = kind.name
    if part is not None:
        conversion = keep_part(conversion, part, where=", ".join(str(f.path) for f in files))
        written = PART_FAMILIES.get(part, written)
    report = format_report(kind.name, files, conversion, dtype=dtype)
    parameters = sum(mapped.parameters for mapped in conversion.parts.values())
    with directory_bar(Path(out).expanduser(), parameters * (4 if dtype == "float32" else 2)):
        save_weights(
            out,
            {name: mapped.variables for name, mapped in conversion.parts.items()},
            family=written,
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
    return "\n".join([report, *(verify(out, files, kind) if check else ())])


def recognise(files: Sequence[SourceFile]) -> str:
    """The one family whose keys these files have.

    Raises:
      InputError: none or several; the message lists some keys and the known families.
    """
    found = [name for name, family in FAMILIES.items() if family.matches(files)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(f.path) for f in files)
    what = "not a known checkpoint"
    if found:
        what = f"fits several families ({', '.join(found)}), choose one with --family"
    raise InputError(
        f"{names}: {what}; first keys: {', '.join(sorted(keys(files))[:4]) or 'none'}; "
        f"known families: {', '.join(FAMILIES)}"
    )


def keep_part(conversion: Conversion, part: str, *, where: str) -> Conversion:
    """The conversion with one part only, and what belongs to it.

    A generator's mean latent [L, D] becomes [D] where its rows are equal, as StyleGAN2's own files
    have it.

    Raises:
      InputError: there is no such part; the message lists those there are.
    """
    if part not in conversion.parts:
        raise InputError(f"--part: {where} has no {part}, it has {', '.join(conversion.parts)}")
    kept = (part, *TOGETHER.get(part, ()))
    parts = {k: v for k, v in conversion.parts.items() if k in kept}
    if part == "generator" and "w_avg" in parts:
        mean = parts["w_avg"]
        rows = mean.variables.reshape(-1, mean.variables.shape[-1])
        if np.all(rows == rows[0]):
            parts["w_avg"] = dataclasses.replace(mean, variables=rows[0], parameters=rows.shape[1])
    return dataclasses.replace(
        conversion,
        parts=parts,
        architectures={k: v for k, v in conversion.architectures.items() if k in kept},
    )
