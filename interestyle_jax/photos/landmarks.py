"""The face of a photograph and the four points that align it, from LiteRT or dlib landmarks."""

import dataclasses
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.photos.face_detector import LEVELS, FaceDetector
from interestyle_jax.photos.face_mesh import FaceMesh

LANDMARKERS = ("litert", "dlib")
MIN_PRESENCE = 0.5
# Faces of at least this share of the largest one's size compete for being the most central.
NEARLY_AS_LARGE = 0.8
# Face Mesh's contours of the eyes and the outer corners of the mouth, the left one in the picture
# first: of its points, these lie nearest to dlib's eye contours (36-47) and corners (48 and 54).
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
MOUTH_CORNERS = (61, 291)


@dataclasses.dataclass(frozen=True)
class Face:
    """A face of a photograph; positions as in `quads`.

    Attributes:
      points: [4, 2], the middle of the eyes and the corners of the mouth, the left one in the
        picture first.
      landmarks: [468, 2] of Face Mesh or [68, 2] of dlib.
      score: the landmarker's own measure that this is a face; LiteRT's is a probability.
    """

    points: np.ndarray
    landmarks: np.ndarray
    score: float


class Landmarker(Protocol):
    """Finds the faces of uint8 [H, W, 3], in any order."""

    name: str

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Face]: ...


class LiteRTLandmarker:
    """BlazeFace and Face Mesh: 468 points; smaller faces only where no larger one is found."""

    name = "litert"

    def __init__(self, *, num_threads: int = 1):
        """Loads the networks; raises InputError where LiteRT is not installed."""
        self._detector = FaceDetector(num_threads=num_threads)
        self._mesh = FaceMesh(num_threads=num_threads)

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """See `Landmarker`."""
        for level in range(len(LEVELS)):
            faces = []
            for found in self._detector(picture, level=level):
                landmarks, score = self._mesh(picture, found.box, found.keypoints[:2])
                if score >= MIN_PRESENCE:
                    faces.append(Face(alignment_points(landmarks), landmarks, score))
            if faces:
                return faces
        return []


def alignment_points(landmarks: Float[np.ndarray, "468 2"]) -> Float[np.ndarray, "4 2"]:
    """Face Mesh's [468, 2] -> [4, 2]: means of the eyes' contours, corners of the mouth."""
    eyes = [landmarks[list(eye)].mean(0) for eye in EYES]
    return np.stack([*eyes, *landmarks[list(MOUTH_CORNERS)]])


def make_landmarker(
    name: str, *, dlib_file: str | Path | None = None, num_threads: int = 1
) -> Landmarker:
    """The landmarker of a name.

    Args:
      name: one of LANDMARKERS.
      dlib_file: dlib's shape_predictor_68_face_landmarks.dat, for "dlib".
      num_threads: CPU threads of LiteRT.

    Raises:
      InputError: unknown name, a package that is not installed, or no such file.
    """
    if name == "litert":
        return LiteRTLandmarker(num_threads=num_threads)
    if name == "dlib":
        from interestyle_jax.photos.dlib_landmarks import DlibLandmarker

        return DlibLandmarker(dlib_file)
    raise InputError(f"landmarks: '{name}', expected one of {', '.join(LANDMARKERS)}")


def find_face(
    picture: UInt8[np.ndarray, "H W 3"], landmarker: Landmarker, *, name: str
) -> tuple[Face, int]:
    """The face to align and how many were found.

    The largest one; among those nearly as large, the most central.

    Args:
      picture: uint8 [H, W, 3], RGB.
      landmarker: from `make_landmarker`.
      name: of the picture, for the error.

    Raises:
      InputError: no face was found.
    """
    faces = landmarker(picture)
    if not faces:
        height, width = picture.shape[:2]
        raise InputError(f"{name}: no face found in {width} x {height} pixels")
    sizes = [np.ptp(face.landmarks, axis=0).max() for face in faces]
    middle = (np.array(picture.shape[1::-1]) - 1) / 2
    large = [
        face
        for face, size in zip(faces, sizes, strict=True)
        if size >= NEARLY_AS_LARGE * max(sizes)
    ]
    return min(large, key=lambda face: np.hypot(*(face.points.mean(0) - middle))), len(faces)
