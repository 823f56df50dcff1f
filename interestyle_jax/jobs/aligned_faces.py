"""Faces of photographs on their way through a job: aligned before, pasted back after."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import MaskProvider, find_provider
from interestyle_jax.one_line import print_notice
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.ffhq_alignment import align
from interestyle_jax.photos.landmarks import find_face, make_landmarker
from interestyle_jax.photos.paste_back import check_edge, paste_back

MOST_TOLD = 10
# Providers that need nothing but the image.
PASTE_MASKS = ("selfie", "segformer", "detr", "graphonomy")


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How photographs are aligned before their inversion, and pasted back after it.

    Attributes:
      landmarks: "litert" or "dlib".
      dlib_file: dlib's landmark file, for "dlib".
      paste_back: also write NAME_pasted.png, the photograph with the inversion in it.
      feather: as in `paste_back`.
      shape: as in `paste_back`.
      mask: mask provider whose interest region of the aligned face is pasted; None pastes all.
      mask_weights: the provider's weights or model, where it needs other than its own.
    """

    landmarks: str = "litert"
    dlib_file: str | Path | None = None
    paste_back: bool = False
    feather: float = 0.1
    shape: str = "square"
    mask: str | None = None
    mask_weights: str | Path | None = None

    def options(self) -> dict[str, Any]:
        """The fields as JSON."""
        paths = ("dlib_file", "mask_weights")
        options = dataclasses.asdict(self)
        return options | {name: str(options[name]) for name in paths if options[name] is not None}


class AlignedFace(NamedTuple):
    """A face cut out of its photograph.

    Attributes:
      image: uint8 [size, size, 3].
      quad: [4, 2] in the photograph.
      face: its landmarks in the photograph.
      num_faces: how many faces the photograph has.
      photo_size: its width and height.
    """

    image: np.ndarray
    quad: np.ndarray
    face: Face
    num_faces: int
    photo_size: tuple[int, int]


class Faces:
    """Aligns the face of a photograph and pastes it back; for any number of threads.

    Attributes:
      alignment: how.
      size: side of the aligned faces.
    """

    def __init__(self, alignment: Alignment, *, size: int):
        """Loads what finds faces and regions.

        Raises:
          InputError: options that do not fit, or a missing package or file.
        """
        check_edge(alignment.feather, alignment.shape)
        self.alignment, self.size = alignment, size
        self._provider: MaskProvider | None = None
        if alignment.mask is not None:
            if alignment.mask not in PASTE_MASKS:
                names = ", ".join(PASTE_MASKS)
                raise InputError(f"mask: '{alignment.mask}', expected one of {names}")
            self._provider = find_provider(alignment.mask, alignment.mask_weights, option="mask")
        self._landmarker = make_landmarker(alignment.landmarks, dlib_file=alignment.dlib_file)

    def align(self, file: Path) -> AlignedFace:
        """The face of a photograph; raises InputError where it is unreadable or has none."""
        photo = read_image(file)
        face, num_faces = find_face(photo, self._landmarker, name=str(file))
        try:
            image, quad = align(photo, face.points, size=self.size)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        return AlignedFace(image, quad, face, num_faces, photo.shape[1::-1])

    def paste(
        self, file: Path, face: AlignedFace, inversion: UInt8[np.ndarray, "R R 3"]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The photograph, uint8 [H, W, 3], with an inversion, uint8 [R, R, 3], of its face in it.

        The photograph is read again: in memory they would be many.
        """
        mask = None
        if self._provider is not None:
            interest = self._provider(face.image, name=file.stem).interest[..., 0]
            size = inversion.shape[1::-1]
            mask = np.asarray(Image.fromarray(interest).resize(size, Image.Resampling.BILINEAR))
        return paste_back(
            read_image(file),
            inversion,
            face.quad,
            mask=mask,
            feather=self.alignment.feather,
            shape=self.alignment.shape,
        )


def tell_of_several(num_faces: Mapping[str, int]) -> None:
    """Says on stderr in which photographs one of several faces was chosen, the first MOST_TOLD."""
    several = [f"{file}: {count} faces" for file, count in num_faces.items() if count > 1]
    for line in several[:MOST_TOLD]:
        print_notice(f"{line}, took the largest")
    if len(several) > MOST_TOLD:
        more = len(several) - MOST_TOLD
        print(f"interestyle: ... and {more} more, as the report says", file=sys.stderr)
