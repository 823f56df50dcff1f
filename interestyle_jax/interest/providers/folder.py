"""Masks that exist already: interest and face masks, or label maps, of the images' names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.data.images import read_mask
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.label_files import (
    file_key,
    files_by_name,
    read_at_size,
    read_labels,
)
from interestyle_jax.interest.providers.masks import Masks, label_indices, pick


class FolderProvider:
    """Looks masks up by the image's name; see `MaskProvider`.

    From masks, labels are outside, interest and face; from label maps, the numbers 0 to 255.
    """

    name = "folder"

    def __init__(
        self,
        *,
        masks: str | Path | None = None,
        face_masks: str | Path | None = None,
        labels: str | Path | None = None,
        classes: Sequence[str] | None = None,
        face_classes: Sequence[str] | None = None,
    ):
        """Lists the files.

        Args:
          masks: folder of interest masks, white inside.
          face_masks: folder of face masks, optional.
          labels: folder of label maps, instead of masks.
          classes: with label maps, the numbers of the interest region.
          face_classes: those of the face, optional.

        Raises:
          InputError: neither or both of masks and label maps, no such folders, unknown numbers.
        """
        if (masks is None) == (labels is None):
            raise InputError("--masks, --labels: the folder provider needs one of them")
        self._masks = self._faces = self._labels = None
        if labels is None:
            if classes or face_classes:
                raise InputError("--classes: for label maps (--labels) alone")
            self._masks = files_by_name(masks, option="--masks")
            self.labels: tuple[str, ...] = ("outside", "interest")
            if face_masks is not None:
                self._faces = files_by_name(face_masks, option="--face-masks")
                self.labels += ("face",)
            return
        if face_masks is not None:
            raise InputError("--face-masks: goes with --masks; of label maps --face-classes")
        self._labels = files_by_name(labels, option="--labels")
        self.labels = tuple(str(i) for i in range(256))
        self._interest = label_indices(classes or (), self.labels)
        self._face = label_indices(face_classes or (), self.labels) if face_classes else None

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; masks are inside from 128 on."""
        if self._labels is not None:
            labels = read_at_size(_find(self._labels, name), read_labels, image.shape)
            face = None if self._face is None else pick(labels, self._face)
            return Masks(labels, pick(labels, self._interest), face)
        interest = self._mask(self._masks, name, image)
        face = None if self._faces is None else self._mask(self._faces, name, image)
        labels = (interest[..., 0] > 0).astype(np.uint8)
        if face is not None:
            labels[face[..., 0] > 0] = 2
        return Masks(labels, interest, face)

    @staticmethod
    def _mask(files: dict[str, Path], name: str | None, image: np.ndarray) -> np.ndarray:
        mask = read_at_size(_find(files, name), read_mask, image.shape)
        return ((mask >= 128) * 255).astype(np.uint8)


def _find(files: dict[str, Path], name: str | None) -> Path:
    if name is None:
        raise ValueError("this provider finds masks by the image's name, which was not given")
    path = files.get(file_key(name))
    if path is None:
        folder = next(iter(files.values())).parent
        raise InputError(f"{name}: has no mask of that name in {folder}")
    return path
