"""dlib's 68 points: the landmarks that FFHQ itself was aligned by.

The landmark file was trained on images that are licensed for research (iBUG 300-W), so it is no
part of this package; the caller names it.
"""

import threading
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.photos.faces import Face, bounding_box
from interestyle_jax.photos.landmarks import is_one_face
from interestyle_jax.photos.quads import points_turned_back

FILE = "shape_predictor_68_face_landmarks.dat"
# The detector sees at most this many pixels a side, doubled: faces from 40 of them.
LONGEST_SIDE = 1024


class DlibLandmarker:
    """dlib's frontal face detector and its predictor of 68 points, whichever way up faces are."""

    name = "dlib"

    def __init__(self, file: str | Path | None):
        """Reads the landmark file.

        Args:
          file: shape_predictor_68_face_landmarks.dat.

        Raises:
          InputError: dlib is not installed, or the file is none of its predictors.
        """
        try:
            import dlib
        except ImportError as error:
            raise InputError(
                f"landmarks: 'dlib' needs the package dlib-bin: "
                f"pip install 'interestyle_jax[dlib]' ({error})"
            ) from error
        if file is None:
            raise InputError(f"landmarks: 'dlib' needs its file {FILE}: --dlib-file=PATH")
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file, expected {FILE}")
        try:
            self._predictor = dlib.shape_predictor(str(file))
        except RuntimeError as error:
            raise InputError(f"{file}: dlib cannot read it, expected {FILE}") from error
        self._detector = dlib.get_frontal_face_detector()
        self._rectangle = dlib.rectangle
        self._lock = threading.Lock()

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """See `Landmarker`."""
        # The detector finds upright faces, and now and then something in one on its head.
        faces = [face for turn in range(4) for face in self._turned(image, turn)]
        kept: list[Face] = []
        for face in sorted(faces, key=lambda face: -face.score):
            if not any(is_one_face(face.landmarks, other.landmarks) for other in kept):
                kept.append(face)
        return kept

    def _turned(self, image: np.ndarray, turn: int) -> list[Face]:
        """The faces that are seen after `turn` quarter turns counterclockwise."""
        image = np.ascontiguousarray(np.rot90(image, turn))
        height, width = image.shape[:2]
        scale = max(max(height, width) / LONGEST_SIDE, 1.0)
        small = image
        if scale > 1:
            size = tuple(max(1, round(side / scale)) for side in (width, height))
            small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        # The detector keeps the image that it works on.
        with self._lock:
            boxes, scores, _ = self._detector.run(small, 1, 0.0)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            sides = (box.left(), box.top(), box.right(), box.bottom())
            whole = self._rectangle(*(round(side * scale) for side in sides))
            shape = self._predictor(image, whole)
            if shape.num_parts != 68:
                raise InputError(f"landmarks: dlib's file has {shape.num_parts} points, not 68")
            seen = np.array([[p.x, p.y] for p in shape.parts()], np.float64)
            landmarks = points_turned_back(seen, turn, width - 1, height - 1)
            faces.append(Face(bounding_box(landmarks), float(score), landmarks, turn))
        return faces
