"""What edited images show, for the report of `edit`: each known attribute, column by column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.data.images import read_image, resize_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.evaluation.attributes import AttributeReader, Attributes

BATCH_SIZE = 32
UNEDITED = "0"


def attribute_report(
    reader: AttributeReader, out: Path, names: Sequence[str], columns: Sequence[str]
) -> dict[str, Any]:
    """Reads NAME_COLUMN.png of all names.

    Args:
      reader: of images of their world; others are resized to what it reads.
      out: their folder.
      names: of images.
      columns: labels; "0" is the image without an edit.

    Returns:
      {column: {"shows": {attribute: {kind: share of the images}}, "numbers": {name: mean},
      "changed": {attribute: share in which it is another kind than in column "0"}}}; "changed" is
      null where there is no such column.

    Raises:
      InputError: an image that cannot be read.
    """
    read = {column: _read(reader, out, names, column) for column in columns} if names else {}
    before = read.get(UNEDITED)
    return {column: _summary(shown, before) for column, shown in read.items()}


def _read(reader: AttributeReader, out: Path, names: Sequence[str], column: str) -> Attributes:
    size = (reader.resolution,) * 2
    images = [resize_image(read_image(out / f"{name}_{column}.png"), size) for name in names]
    return reader.read_all(to_float(np.stack(images)), batch_size=BATCH_SIZE)


def _summary(read: Attributes, before: Attributes | None) -> dict[str, Any]:
    shows, changed = {}, {}
    for attribute, kinds in read.chances.items():
        labels = np.array(read.labels(attribute))
        shows[attribute] = {kind: float((labels == kind).mean()) for kind in kinds}
        if before is not None:
            changed[attribute] = float((labels != np.array(before.labels(attribute))).mean())
    return {
        "shows": shows,
        "numbers": {name: float(values.mean()) for name, values in read.numbers.items()},
        "changed": None if before is None else changed,
    }
