"""What encoders are measured on, as a job's source: a TFDS data set, or a folder of images."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.data.data_set import Examples, open_data_set
from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.data.images import read_image, resize_image
from interestyle_jax.data.locate import INFO, locate_data_set
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.resize import Shape
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import Item

FIELDS = ("image", "clean", "interest_mask", "face_mask")


class Samples:
    """Images to measure on, in a fixed order; any number of threads may read them.

    Attributes:
      fields: of FIELDS, what there is; a folder has "image" alone.
      options: what tells other samples apart, as JSON.
      is_data_set: whether they are a data set's, which has no bad images unless it is damaged.
    """

    def __init__(self, data: str | Path, split: str, *, num_samples: int | None = None):
        """Finds out what `data` is: a TFDS data set (directory or name), or a folder of images.

        Args:
          data: where they are.
          split: split of the data set; unused for a folder.
          num_samples: only the first ones, or None for all.

        Raises:
          InputError: it is neither, is damaged, has no such split or no images, its samples have no
            `image`, or `num_samples` is below 1.
        """
        if num_samples is not None and num_samples < 1:
            raise InputError(f"num_samples: {num_samples}, expected at least 1")
        directory = locate_data_set(data)
        self._data, self._split = Path(os.path.abspath(directory)), split
        self.options: dict[str, Any] = {"data": str(self._data)}
        self.is_data_set = (directory / INFO).is_file()
        if self.is_data_set:
            features = open_data_set(directory).info.features
            self.fields = tuple(name for name in FIELDS if name in features)
            if "image" not in self.fields:
                known = ", ".join(sorted(features))
                raise InputError(f"{directory}: has no field 'image' (it has {known})")
            self._examples = Examples(directory, split, self.fields, cache=False)
            self.options |= {"split": split, "fingerprint": fingerprint(directory)}
        else:
            self.fields = ("image",)
            self._files = ImageFiles(directory)
        count = len(self._examples if self.is_data_set else self._files)
        self._count = count if num_samples is None else min(num_samples, count)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Item:
        if not self.is_data_set:
            return self._files[index]
        return Item(index, str(index), f"{self._data}: example {index} of split '{self._split}'")

    def state(self, item: Item) -> dict[str, Any]:
        """A file's state; that of a data set is in its fingerprint."""
        return {"file": item.source} if self.is_data_set else self._files.state(item)

    def read(self, item: Item, shapes: Iterable[Shape]) -> dict[Shape, dict[str, np.ndarray]]:
        """A sample at every shape: {(h, w): {field: uint8 [h, w, C]}}, by `resize_image`.

        Raises:
          InputError: it cannot be read.
        """
        if self.is_data_set:
            sample = self._examples[item.index]
        else:
            sample = {"image": read_image(item.source)}
        return {s: {f: resize_image(sample[f], s) for f in self.fields} for s in shapes}
