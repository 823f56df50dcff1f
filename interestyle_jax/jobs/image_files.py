"""Image files as a job's source, checked against the files that the job will write."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from interestyle_jax.data.images import list_images
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.jobs.job import Item


class ImageFiles:
    """An image file, or those of a folder, by name."""

    def __init__(self, source: str | Path | Sequence[Path]):
        """Lists the images; raises InputError as `list_images` does."""
        paths = list_images(source) if isinstance(source, str | Path) else source
        # As text: Path objects take ten times the memory.
        self._files = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Item:
        file = Path(self._files[index])
        return Item(index, file.stem, file)

    def state(self, item: Item) -> dict[str, Any]:
        """File, length and time of change; raises InputError where the file is gone."""
        try:
            state = item.source.stat()
        except OSError as error:
            raise file_error(error, f"{item.source}: cannot be read") from error
        file = os.path.abspath(item.source)
        return {"file": file, "bytes": state.st_size, "modified": state.st_mtime_ns}

    def check_results(
        self, out: Path, *, own_files: Sequence[str], endings: Iterable[str] = ("",)
    ) -> None:
        """Checks the names NAME + ending + .png that a job will write to `out`.

        Raises:
          InputError: results that would overwrite each other, an input, or one of `own_files`.
        """
        endings = tuple(endings)
        writers: dict[str, Path] = {}
        inputs: set[tuple[int, int]] | None = None
        for file in map(Path, self._files):
            for ending in endings:
                target = out / f"{file.stem}{ending}.png"
                if target.name in own_files:
                    raise InputError(
                        f"{file}: its result would be {target.name}, which the command writes"
                    )
                other = writers.setdefault(target.name, file)
                if other is not file:
                    raise InputError(
                        f"{file}: its result {target.name} is also that of {other.name}"
                    )
                identity = _identity(target)
                if identity is None:
                    continue
                if inputs is None:
                    inputs = set(map(_identity, map(Path, self._files)))
                if identity in inputs:
                    raise InputError(f"{out}: {target.name} would overwrite its own input")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, by which two paths are the same file; None where there is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
