"""Latents of a file as a job's source."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.job import Item
from interestyle_jax.jobs.latents import LatentFile


class LatentItems:
    """The latents of an `invert`, each the w_plus of its last iteration, by name."""

    def __init__(self, path: str | Path, model: Model, *, other_generator: bool | None = False):
        """Opens a `latents.npz`, or the folder that holds it.

        Args:
          path: file or folder, as of `LatentFile`.
          model: has the generator that draws them.
          other_generator: take latents that were made with another generator, of the same shape;
            None: do not, and there is no option that would.

        Raises:
          InputError: no latents there, none of this generator's shape, another generator's, or
            names that are no file names.
        """
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise InputError(f"{self.path}: no such file or folder")
        self._latents = LatentFile(self.path)
        count, num_entries, *shape = self._latents.shape
        expected = list(model.latents_shape)
        if shape != expected:
            raise InputError(
                f"{self.path}: holds w_plus of shape {shape}, but this generator takes {expected}"
            )
        if count == 0 or num_entries == 0:
            raise InputError(f"{self.path}: holds no latents")
        own = model.generator_fingerprint
        if not other_generator and self._latents.generator not in (None, own):
            raise InputError(
                f"{self.path}: was made with generator {self._latents.generator}, these weights "
                f"hold {own}"
                + ("" if other_generator is None else "; --other-generator takes it all the same")
            )
        for name in self._latents.names:
            if not name or set(name) & {"/", "\0"}:
                raise InputError(f"{self.path}: {name!r} is no name of an image")
        if len(set(self._latents.names)) < count:
            raise InputError(f"{self.path}: two of its latents have the same name")

    def __len__(self) -> int:
        return len(self._latents.names)

    def __getitem__(self, index: int) -> Item:
        name = self._latents.names[index]
        return Item(index, name, f"{self.path}: {name}")

    def state(self, item: Item) -> dict[str, Any]:
        """Files, their lengths and times of change; raises InputError where one is gone."""
        del item
        state = []
        for path in self._latents.paths:
            try:
                found = path.stat()
            except OSError as error:
                raise file_error(error, f"{path}: cannot be read") from error
            state.append([os.path.abspath(path), found.st_size, found.st_mtime_ns])
        return {"file": os.path.abspath(self.path), "latents_files": state}

    def read(self, item: Item) -> Float[np.ndarray, "L D"]:
        """w_plus [L, D], float32; raises InputError where it is not finite."""
        w_plus = self._latents[item.name][-1]
        if not np.isfinite(w_plus).all():
            raise InputError(f"{item.source}: its latent is not finite")
        return w_plus

    def find(self, name: str) -> Float[np.ndarray, "L D"]:
        """w_plus [L, D] of an image's name; raises InputError where there is none."""
        if name not in self._latents:
            raise InputError(f"{self.path}: has no latent of {name}")
        return self.read(Item(0, name, f"{self.path}: {name}"))
