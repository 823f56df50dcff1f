"""Image files as a job's source."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interestyle_jax.data.images import list_images
from interestyle_jax.errors import file_error
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
