"""Finished channels of a measurement on the disk, of which several processes may do a share."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.file_lock import locked
from interestyle_jax.whole_files import whole_file

LOCK = ".lock"


class ChannelParts:
    """A folder with a file a part, all made with the same options."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        """Makes the folder where it is missing.

        Args:
          folder: of the parts alone.
          facts: all that they depend on, as JSON.

        Raises:
          InputError: it may not be made.
          MachineError: the disk is full or fails.
        """
        self.folder, self._facts = folder, json.dumps(facts, sort_keys=True)
        self._make()

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_error(error, f"{self.folder}: cannot be made") from error

    def _path(self, i: int) -> Path:
        return self.folder / f"{i:05d}.npz"

    def read(self, i: int) -> Float[np.ndarray, "k E"] | None:
        """Part i, or None where it is not there.

        Raises:
          InputError: it is damaged, or was made with other options.
        """
        path = self._path(i)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                facts, effects = str(file["facts"]), file["effects"]
        except Exception as error:
            raise file_error(error, f"{path}: damaged, delete it") from error
        if facts != self._facts:
            raise InputError(
                f"{self.folder}: holds parts of a call with other options; delete it, or give "
                "another --out"
            )
        return effects

    def write(self, i: int, effects: Float[np.ndarray, "k E"]) -> None:
        """Writes part i, [k, E], whole or not at all."""
        with whole_file(self._path(i)) as file:
            np.savez(file, facts=self._facts, effects=effects)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process of those that share the folder at a time; another may have removed it."""
        self._make()
        with locked(self.folder / LOCK):
            yield

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
