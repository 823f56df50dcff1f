"""Generators of latents' own, as `invert --method=pti` leaves them, for `edit` and `mix`."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.generator_differences import (
    Difference,
    find_difference,
    read_difference,
)
from interestyle_jax.inversion.inverter import Model


class TunedGenerators:
    """Differences by the names of latents; for any number of threads.

    Attributes:
      folder: where they are.
    """

    def __init__(
        self, folder: str | Path, model: Model, names: Sequence[str], *, other_generator: bool
    ):
        """Checks that every latent has one.

        Args:
          folder: an output folder of `invert`, or its folder "tuned".
          model: has the generator that they are added to.
          names: of the latents.
          other_generator: take those of another generator of the same shapes.

        Raises:
          InputError: no such folder, or a latent without a difference.
        """
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise InputError(f"--tuned={folder}: no such folder")
        self._variables = jax.eval_shape(lambda: model.variables["generator"])
        self._generator = None if other_generator else model.generator_fingerprint
        for name in names:
            find_difference(self.folder, name)

    def find(self, name: str) -> Difference:
        """That of a latent; raises InputError as `read_difference`."""
        file = find_difference(self.folder, name)
        return read_difference(file, self._variables, generator=self._generator)
