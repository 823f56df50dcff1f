"""The face of a photograph and the four points that align it, from LiteRT or dlib landmarks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.photos.face_detector import LEVELS, Detection, FaceDetector
from interestyle_jax.photos.face_mesh import EYE_CORNERS, FaceMesh

LANDMARKERS = ("litert", "dlib")
MIN_PRESENCE = 0.5
# From this presence a face counts whichever way up it is; below, only the way that the surest is.
# What the network takes for a face in a wrong turn seldom reaches it.
SURE = 0.9999
# Finds that share so much of the smaller one are one face.
SAME_FACE = 0.4
# Faces of at least this share of the largest one's size compete for being the most central.
NEARLY_AS_LARGE = 0.8
# Face Mesh's contours of the eyes and the outer corners of the mouth, the left one in the image
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
      points: [4, 2], the middle of the eyes and the corners of the mouth, of each pair first the
        one that is left when the face is upright.
      landmarks: [468, 2] of Face Mesh or [68, 2] of dlib.
      score: the landmarker's own measure that this is a face; LiteRT's is a probability.
    """

    points: np.ndarray
    landmarks: np.ndarray
    score: float


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
        self._detector = FaceDetector(num_threads=num_threads)
        self._mesh = FaceMesh(num_threads=num_threads)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """See `Landmarker`."""
        unsure: list[Face] = []
        for level in range(len(LEVELS)):
            faces = []
            for found in self._upright(image, self._detector(image, level=level)):
                landmarks, score = self._mesh(image, found.box, found.keypoints[:2])
                if score >= MIN_PRESENCE:
                    faces.append((found.turn, Face(alignment_points(landmarks), landmarks, score)))
            way, surest = max(faces, key=lambda pair: pair[1].score, default=(0, None))
            if surest is not None and surest.score >= SURE:
                return [face for turn, face in faces if turn == way or face.score >= SURE]
            unsure = unsure or [face for turn, face in faces if turn == 0]
        return unsure

    def _upright(self, image: np.ndarray, found: Sequence[Detection]) -> list[Detection]:
        """Of the finds of one face the one that shows it upright.

        Seen in a wrong turn a face is found too, but its presence is less: by a factor of 100 in
        its odds at least, where the detector's scores are apart by 1.4.
        """
        looks = [self._mesh.glance(image, face.box, face.keypoints[:2]) for face in found]
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
    image: UInt8[np.ndarray, "H W 3"], landmarker: Landmarker, *, name: str
) -> tuple[Face, int]:
    """The face to align and how many were found.

    The largest one; among those nearly as large, the most central.

    Args:
      image: uint8 [H, W, 3], RGB.
      landmarker: from `make_landmarker`.
      name: of the image, for the error.

    Raises:
      InputError: no face was found.
    """
    faces = landmarker(image)
    if not faces:
        height, width = image.shape[:2]
        raise InputError(f"{name}: no face found in {width} x {height} pixels")
    sizes = [np.ptp(face.landmarks, axis=0).max() for face in faces]
    middle = (np.array(image.shape[1::-1]) - 1) / 2
    large = [
        face
        for face, size in zip(faces, sizes, strict=True)
        if size >= NEARLY_AS_LARGE * max(sizes)
    ]
    return min(large, key=lambda face: np.hypot(*(face.points.mean(0) - middle))), len(faces)
