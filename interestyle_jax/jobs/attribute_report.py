"""What edited images show, for the report of `edit`: each known attribute, column by column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from interestyle_jax.data.images import read_image, resize_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.evaluation.attributes import AttributeReader

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


class _Shown(NamedTuple):
    """What the images of a column show, each array [n]."""

    # {attribute: {kind: whether it is this one}}
    kinds: dict[str, dict[str, np.ndarray]]
    numbers: dict[str, np.ndarray]


def _read(reader: AttributeReader, out: Path, names: Sequence[str], column: str) -> _Shown:
    """Reads a batch of images at a time; of each its kinds and numbers stay."""
    size = (reader.resolution,) * 2
    parts = []
    for start in range(0, len(names), BATCH_SIZE):
        files = [out / f"{name}_{column}.png" for name in names[start : start + BATCH_SIZE]]
        images = np.stack([resize_image(read_image(file), size) for file in files])
        read = reader.read_all(to_float(images), batch_size=BATCH_SIZE)
        kinds = {}
        for attribute, chances in read.chances.items():
            labels = np.array(read.labels(attribute))
            kinds[attribute] = {kind: labels == kind for kind in chances}
        parts.append(_Shown(kinds, read.numbers))
    return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def _summary(shown: _Shown, before: _Shown | None) -> dict[str, Any]:
    changed = None
    if before is not None:
        changed = {
            attribute: float(
                np.any([kinds[k] != before.kinds[attribute][k] for k in kinds], 0).mean()
            )
            for attribute, kinds in shown.kinds.items()
        }
    return {
        "shows": {
            attribute: {kind: float(found.mean()) for kind, found in kinds.items()}
            for attribute, kinds in shown.kinds.items()
        },
        "numbers": {name: float(values.mean()) for name, values in shown.numbers.items()},
        "changed": changed,
    }
