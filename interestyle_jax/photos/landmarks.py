"""The faces of a photograph with their landmarks, by LiteRT or dlib, and the one to align."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.photos.blazeface_detector import LEVELS, BlazeFaceDetector
from interestyle_jax.photos.face_mesh import EYE_CORNERS, FaceMesh
from interestyle_jax.photos.faces import Face, bounding_box

LANDMARKERS = ("litert", "dlib")
MIN_PRESENCE = 0.5
# From this presence a face counts whichever way up it is; below, only the way that the surest is.
# What the network takes for a face in a wrong turn seldom reaches it.
SURE = 0.9999
# Finds that share so much of the smaller one are one face.
SAME_FACE = 0.4
# Faces of at least this share of the largest one's size compete for being the most central.
NEARLY_AS_LARGE = 0.8


class Landmarker(Protocol):
    """Finds the faces of uint8 [H, W, 3], in any order."""

    name: str

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]: ...


class LiteRTLandmarker:
    """BlazeFace and Face Mesh: 468 points; smaller faces only where no larger one is found.

    Faces are found whichever way up they are. Where none is sure (SURE), of all sizes the first
    that may be one, as the photograph is.
    """

    name = "litert"

    def __init__(self, *, num_threads: int = 1):
        """Loads the networks; raises InputError where LiteRT is not installed."""
        self._detector = BlazeFaceDetector(num_threads=num_threads)
        self._mesh = FaceMesh(num_threads=num_threads)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """See `Landmarker`."""
        unsure: list[Face] = []
        for level in range(len(LEVELS)):
            faces = []
            for found in self._upright(image, self._detector(image, level=level)):
                landmarks, score = self._mesh(image, found.box, found.landmarks[:2])
                if score >= MIN_PRESENCE:
                    faces.append(Face(bounding_box(landmarks), score, landmarks, found.turn))
            surest = max(faces, key=lambda face: face.score, default=None)
            if surest is not None and surest.score >= SURE:
                return [f for f in faces if f.turn == surest.turn or f.score >= SURE]
            unsure = unsure or [face for face in faces if face.turn == 0]
        return unsure

    def _upright(self, image: np.ndarray, found: Sequence[Face]) -> list[Face]:
        """Of the finds of one face the one that shows it upright.

        Seen in a wrong turn a face is found too, but its presence is less: by a factor of 100 in
        its odds at least, where the detector's scores are apart by 1.4.
        """
        looks = [self._mesh.glance(image, face.box, face.landmarks[:2]) for face in found]
        rest = sorted(range(len(found)), key=lambda i: -looks[i][1])
        upright = []
        while rest:
            best = looks[rest[0]][0]
            same = [i for i in rest if i == rest[0] or is_one_face(looks[i][0], best)]
            turns = [_nearest_turn(looks[i][0]) for i in same]
            # A face between two turns is found in both: take the nearer.
            near = [i for i, t in zip(same, turns, strict=True) if t == turns[0] == found[i].turn]
            upright.append(found[near[0] if near else rest[0]])
            rest = [i for i in rest if i not in same]
        return upright


def _nearest_turn(landmarks: np.ndarray) -> int:
    """The quarter turns, counterclockwise, that bring a face of Face Mesh nearest to upright."""
    x, y = np.subtract(*landmarks[list(EYE_CORNERS[::-1])])
    return round(float(np.arctan2(y, x)) / (np.pi / 2)) % 4


def is_one_face(one: Float[np.ndarray, "n 2"], other: Float[np.ndarray, "n 2"]) -> bool:
    """Whether two finds with landmarks [n, 2] share most of the smaller one's box."""
    low, high = (np.stack([f(points, axis=0) for points in (one, other)]) for f in (np.min, np.max))
    common = np.prod(np.maximum(high.min(0) - low.max(0), 0))
    return bool(common >= SAME_FACE * max(np.prod(high - low, axis=1).min(), 1e-12))


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
    image: UInt8[np.ndarray, "H W 3"], landmarker: Landmarker, *, name: str
) -> tuple[Face, int]:
    """The face to align, see `main_face`, and how many were found.

    Args:
      image: uint8 [H, W, 3], RGB.
      landmarker: from `make_landmarker`.
      name: of the image, for the error.

    Raises:
      InputError: no face was found.
    """
    faces = landmarker(image)
    height, width = image.shape[:2]
    if not faces:
        raise InputError(f"{name}: no face found in {width} x {height} pixels")
    return main_face(faces, (width, height)), len(faces)


def main_face(faces: Sequence[Face], size: tuple[int, int]) -> Face:
    """The largest of some faces; among those nearly as large, the most central.

    Args:
      faces: at least one.
      size: width and height of their image.
    """
    sizes = [np.ptp(face.landmarks, axis=0).max() for face in faces]
    middle = (np.array(size) - 1) / 2
    large = [
        face for face, own in zip(faces, sizes, strict=True) if own >= NEARLY_AS_LARGE * max(sizes)
    ]
    return min(large, key=lambda face: np.hypot(*(face.points.mean(0) - middle)))
