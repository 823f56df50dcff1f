"""CelebAMask-HQ's labels: the parts its authors publish, or label maps in either order.

Two orders of the 19 labels are in use, see `face_labels.ORDERS`; maps do not say which one they
have, so it has to be named, and maps that cannot be in it are refused.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.face_labels import ORDERS, face_and_hair
from interestyle_jax.interest.providers.label_files import (
    file_key,
    files_by_name,
    read_at_size,
    read_labels,
)
from interestyle_jax.interest.providers.masks import Masks, label_indices, pick

# "00012_l_eye.png"
_PART = re.compile(r"(\d+)_(\w+)")


class CelebAMaskProvider:
    """Labels are the 19 of the order; the face includes glasses and ears; see `MaskProvider`."""

    name = "celebamask"

    def __init__(
        self,
        *,
        labels: str | Path | None = None,
        order: str | None = None,
        classes: Sequence[str] | None = None,
        face_classes: Sequence[str] | None = None,
    ):
        """Lists the files.

        Args:
          labels: folder of parts (`CelebAMask-HQ-mask-anno`, `00012_hair.png`) or of label maps
            (`12.png`), and folders below it.
          order: "celebamask-hq" or "face-parsing"; may be left out for parts. It numbers the
            labels, and of parts that overlap the later one wins.
          classes: labels of the interest region; None: hair and face.
          face_classes: labels of the face; None: its parts by name.

        Raises:
          InputError: no such folder, parts of unknown names, label maps without an order.
        """
        if labels is None:
            raise InputError("--labels: the celebamask provider needs the folder of labels")
        files = files_by_name(labels, option="--labels")
        parts = [m for m in map(_PART.fullmatch, files) if m]
        self._has_parts = len(parts) == len(files)
        if parts and not self._has_parts:
            other = next(files[name] for name in files if not _PART.fullmatch(name))
            raise InputError(f"{other}: is no part such as 00012_hair.png, as others there are")
        if order is None and not self._has_parts:
            raise InputError(
                f"--order: {labels} holds label maps, say which order they have: "
                f"{' or '.join(ORDERS)}"
            )
        order = order or "celebamask-hq"
        if order not in ORDERS:
            raise InputError(f"--order: {order!r}, expected {' or '.join(ORDERS)}")
        self.order, self.labels = order, ORDERS[order]
        self._files: dict[str, Any] = _by_image(files, self.labels) if self._has_parts else files
        face, hair = face_and_hair(self.labels)
        if face_classes:
            face = label_indices(face_classes, self.labels, option="--face-classes")
        self._face = face
        self._interest = label_indices(classes, self.labels) if classes else (*face, *hair)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; maps of CelebA-HQ's proportions are resized to the image."""
        if name is None:
            raise ValueError("this provider finds labels by the image's name, which is missing")
        found = self._files.get(file_key(name))
        if found is None:
            raise InputError(f"{name}: there are no labels of that name")
        if self._has_parts:
            labels = np.zeros(image.shape[:2], np.uint8)
            for index, path in found:
                labels[read_at_size(path, read_labels, image.shape) > 0] = index
        else:
            labels = read_at_size(found, read_labels, image.shape)
            check_order(labels, self.order, where=str(found))
        return Masks(labels, pick(labels, self._interest), pick(labels, self._face))


def _by_image(files: dict[str, Path], labels: Sequence[str]) -> dict[str, list]:
    """{image: [(label index, file)]}, in the order of the labels."""
    found: dict[str, list] = {}
    for name, path in files.items():
        number, part = _PART.fullmatch(name).groups()
        if part not in labels[1:]:
            raise InputError(f"{path}: {part!r} is no part, expected {', '.join(labels[1:])}")
        found.setdefault(file_key(number), []).append((labels.index(part), path))
    return {number: sorted(entries) for number, entries in found.items()}


def check_order(labels: UInt8[np.ndarray, "H W"], order: str, *, where: str) -> None:
    """Refuses a label map that cannot have this order.

    Eyes have the same numbers, 4 and 5, in both orders; label 2 is the nose in one, which lies
    below them, and a brow in the other, which lies above. Label 13 is hair in one and the lower
    lip in the other, which is never larger than the skin.

    Args:
      labels: uint8 [H, W].
      order: a name of `ORDERS`.
      where: the file, for the message.

    Raises:
      InputError: a value above 18, a nose above the eyes, a brow below them, or a lip larger than
        the skin.
    """
    if labels.max() >= len(ORDERS[order]):
        raise InputError(f"{where}: holds the value {labels.max()}, labels end at 18")
    (other,) = ORDERS.keys() - {order}
    rows = np.arange(labels.shape[0])[:, None]
    eyes, two = (labels == 4) | (labels == 5), labels == 2
    seen = None
    if eyes.any() and two.any():
        middle = [(rows * part).sum() / part.sum() for part in (eyes, two)]
        seen = "celebamask-hq" if middle[1] > middle[0] else "face-parsing"
    elif order == "face-parsing" and (labels == 13).sum() > (labels == 1).sum():
        seen = "celebamask-hq"
    if seen not in (None, order):
        raise InputError(
            f"{where}: its labels lie as in the order {other}, not as in {order} (label 2 by the "
            "eyes, the size of label 13)"
        )
