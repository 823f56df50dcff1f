"""What a mask provider gives for an image."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Shaped, UInt8

from interestyle_jax.errors import InputError


class Masks(NamedTuple):
    """The masks of one image.

    Attributes:
      labels: uint8 [H, W], indices of the provider's `labels`.
      interest: uint8 [H, W, 1], 255 inside the interest region, 0 outside, not dilated.
      face: the same for the face alone, or None where the provider does not know it.
    """

    labels: np.ndarray
    interest: np.ndarray
    face: np.ndarray | None = None


class MaskProvider(Protocol):
    """`image -> label map -> interest mask, face mask`, for any number of threads.

    Attributes:
      name: as in `PROVIDERS`.
      labels: label names by index.
    """

    name: str
    labels: tuple[str, ...]

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """Masks of an image.

        Args:
          image: uint8 [H, W, 3].
          name: its file's name up to the suffix, for providers that look masks up.

        Raises:
          InputError: there are no usable masks for this image.
        """
        ...


def pick(labels: UInt8[np.ndarray, "H W"], indices: Collection[int]) -> UInt8[np.ndarray, "H W 1"]:
    """uint8 [H, W, 1]: 255 where `labels [H, W]` is one of `indices`, else 0."""
    table = np.zeros(256, np.uint8)
    table[list(indices)] = 255
    return table[labels][..., None]


def label_indices(
    names: Sequence[str], labels: Sequence[str], *, option: str = "--classes"
) -> tuple[int, ...]:
    """Indices of the labels named, without regard to case, "-" and "_".

    Raises:
      InputError: a name is unknown, the message lists the known ones; or there is none.
    """
    known: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        known.setdefault(plain_name(label), []).append(index)
    unknown = [name for name in names if plain_name(name) not in known]
    if unknown or not names:
        raise InputError(
            f"{option}: {', '.join(map(repr, unknown)) or 'no label'}, expected some of "
            f"{', '.join(labels)}"
        )
    return tuple(index for name in names for index in known[plain_name(name)])


def plain_name(label: str) -> str:
    """A label's name in lower case, words parted by one space."""
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())


def check_image(image: Shaped[np.ndarray, "..."]) -> None:
    """Raises ValueError where an image is not uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image: {image.dtype}{list(image.shape)}, not uint8 [H, W, 3]")
