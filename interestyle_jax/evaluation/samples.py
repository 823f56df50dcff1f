"""What encoders are measured on: a TFDS data set, or a folder of plain images."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float

from interestyle_jax.data.data_set import open_data_set
from interestyle_jax.data.images import list_images, read_image, resize_image
from interestyle_jax.data.locate import locate_data_set
from interestyle_jax.data.pipeline import evaluation_batches, normalize
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.resize import Shape, encoder_input

FIELDS = ("image", "clean", "interest_mask", "face_mask")


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images to measure on, in a fixed order.

    Attributes:
      data: data set directory or folder.
      split: split of the data set; unused for a folder.
      batch_size: B; the last batch is padded to it.
      num_samples: only the first ones, or None for all.
      fields: of FIELDS, what there is; a folder has "image" alone.
      files: the folder's images, None for a data set.
    """

    data: Path
    split: str
    batch_size: int
    num_samples: int | None
    fields: tuple[str, ...]
    files: tuple[Path, ...] | None

    def batches(
        self, shape: Shape
    ) -> Iterator[tuple[dict[str, Float[jax.Array, "B H W _"]], Bool[np.ndarray, " B"]]]:
        """Yields (batch, valid) at `shape` (height, width) pixels, by `resize_image`.

        The batch maps each field to [B, *shape, 3] in [-1, 1], or [B, *shape, 1] in [0, 1] for
        masks; `valid` [B] is false for padding.

        Raises:
          InputError: an image cannot be read, or the data set is damaged.
        """
        source = self._read_data_set(shape) if self.files is None else self._read_files(shape)
        yield from source

    def _read_data_set(self, shape: Shape):
        batches = evaluation_batches(
            self.data,
            self.split,
            batch_size=self.batch_size,
            fields=self.fields,
            num_samples=self.num_samples,
        )
        for batch in batches:
            images = {
                field: np.stack([resize_image(image, shape) for image in batch[field]])
                for field in self.fields
            }
            yield _normalize(images), np.asarray(batch["valid"])

    def _read_files(self, shape: Shape):
        for start in range(0, len(self.files), self.batch_size):
            chunk = self.files[start : start + self.batch_size]
            images = np.stack([encoder_input(read_image(file), shape) for file in chunk])
            missing = self.batch_size - len(chunk)
            images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)], mode="edge")
            yield {"image": jax.numpy.asarray(images)}, np.arange(self.batch_size) < len(chunk)


_normalize = jax.jit(normalize)


def open_samples(
    data: str | Path, split: str, *, batch_size: int, num_samples: int | None = None
) -> Samples:
    """Finds out what `data` is: a TFDS data set (directory or name), or a folder of images.

    Raises:
      InputError: it is neither, holds no images, or its samples have no `image`.
    """
    data = locate_data_set(data)
    if (data / "dataset_info.json").is_file():
        features = open_data_set(data).info.features
        fields = tuple(name for name in FIELDS if name in features)
        if "image" not in fields:
            raise InputError(f"{data}: has no field 'image' (it has {', '.join(sorted(features))})")
        return Samples(data, split, batch_size, num_samples, fields, None)
    files = tuple(list_images(data))[:num_samples]
    return Samples(data, split, min(batch_size, len(files)), num_samples, ("image",), files)
