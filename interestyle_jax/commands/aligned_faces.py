"""Faces of photographs on their way through an inversion: aligned before, pasted back after."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interestyle_jax.commands.align_files import find_faces, tell
from interestyle_jax.data.pictures import save_picture
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import make_provider, provider_options
from interestyle_jax.photos.alignment import align
from interestyle_jax.photos.landmarks import make_landmarker
from interestyle_jax.photos.paste_back import check_edge, paste_back

# Providers that need nothing but the picture.
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


class AlignedFaces:
    """The faces of a list of photographs.

    Attributes:
      files: the photographs that have a face.
      skipped: {file: reason} of the others.
      num_faces: {file: faces found} of those that have one.
      quads: {name: quad [4, 2]} of those aligned so far.
    """

    def __init__(self, files: Sequence[Path], alignment: Alignment, *, size: int):
        """Finds the faces, and tells on stderr what was skipped.

        Args:
          files: photographs.
          alignment: what to do.
          size: side of the aligned faces.

        Raises:
          InputError: no face in more than half of the photographs, options that do not fit, or a
            missing package or file.
        """
        check_edge(alignment.feather, alignment.shape)
        self._provider = _provider(alignment)
        landmarker = make_landmarker(alignment.landmarks, dlib_file=alignment.dlib_file)
        found, self.skipped = find_faces(files, landmarker)
        self.num_faces = {str(face.file): face.num_faces for face in found}
        tell(self.num_faces, self.skipped)
        self._alignment, self._size = alignment, size
        self._points = {face.file: face.face.points for face in found}
        self.files = list(self._points)
        self.quads: dict[str, np.ndarray] = {}

    def aligned(self, file: Path, photo: np.ndarray) -> np.ndarray:
        """The face of uint8 [H, W, 3] as uint8 [size, size, 3]."""
        try:
            face, self.quads[file.stem] = align(photo, self._points[file], size=self._size)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        return face

    def save_pasted(
        self, folder: Path, file: Path, photo: np.ndarray, face: np.ndarray, inversion: np.ndarray
    ) -> None:
        """Writes NAME_pasted.png where the alignment asks for it.

        Args:
          folder: where to.
          file: the photograph's file.
          photo: uint8 [H, W, 3].
          face: what `aligned` returned for it; its interest region is the mask.
          inversion: uint8 [R, R, 3].
        """
        if not self._alignment.paste_back:
            return
        mask = None
        if self._provider is not None:
            interest = self._provider(face, file.stem).interest[..., 0]
            size = inversion.shape[1::-1]
            mask = np.asarray(Image.fromarray(interest).resize(size, Image.Resampling.BILINEAR))
        pasted = paste_back(
            photo,
            inversion,
            self.quads[file.stem],
            mask=mask,
            feather=self._alignment.feather,
            shape=self._alignment.shape,
        )
        save_picture(folder / f"{file.stem}_pasted.png", pasted)

    def report(self) -> dict[str, Any]:
        """What the report says of the alignment."""
        paths = ("dlib_file", "mask_weights")
        options = dataclasses.asdict(self._alignment)
        options |= {name: str(options[name]) for name in paths if options[name] is not None}
        return {
            **options,
            "size": self._size,
            "num_faces": self.num_faces,
            "quads": {name: quad.round(3).tolist() for name, quad in self.quads.items()},
            "skipped": self.skipped,
        }


def _provider(alignment: Alignment):
    if alignment.mask is None:
        return None
    if alignment.mask not in PASTE_MASKS:
        raise InputError(f"mask: '{alignment.mask}', expected one of {', '.join(PASTE_MASKS)}")
    if alignment.mask_weights is None:
        return make_provider(alignment.mask)
    known = provider_options(alignment.mask)
    option = next((name for name in ("weights", "model") if name in known), None)
    if option is None:
        raise InputError(f"mask: '{alignment.mask}' takes no weights")
    return make_provider(alignment.mask, **{option: alignment.mask_weights})
