"""The pictures that a command reads, checked against the files that it will write."""

from collections.abc import Sequence
from pathlib import Path

from interestyle_jax.data.pictures import list_pictures
from interestyle_jax.errors import InputError


def input_pictures(
    source: str | Path,
    out: str | Path,
    *,
    own_files: Sequence[str] = (),
    endings: Sequence[str] = ("",),
) -> list[Path]:
    """The pictures of `source`, sorted by name, for a command that writes NAME + ending + .png.

    Args:
      source: picture file or folder.
      out: where the results go.
      own_files: other files that the command writes there.
      endings: of the results of a picture.

    Raises:
      InputError: no pictures, or results that would overwrite each other, an input or an own file.
    """
    files, out = list_pictures(source), Path(out)
    writers: dict[str, Path] = {}
    for file in files:
        for ending in endings:
            target = out / f"{file.stem}{ending}.png"
            if target.name in own_files:
                raise InputError(
                    f"{file}: its result would be {target.name}, which the command writes"
                )
            other = writers.setdefault(target.name, file)
            if other is not file:
                raise InputError(f"{file}: its result {target.name} is also that of {other.name}")
            if target.exists() and any(target.samefile(f) for f in files):
                raise InputError(f"{out}: {target.name} would overwrite its own input")
    return files
