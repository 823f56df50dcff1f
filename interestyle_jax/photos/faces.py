"""A face of an image, as detectors and landmarkers find it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Face Mesh's contours of the eyes and the outer corners of the mouth: of its points, these lie
# nearest to dlib's eye contours (36-47) and corners (48 and 54).
_MESH_EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
# Number of landmarks -> which of them are around an eye each, and the corners of the mouth; of each
# pair first the one that is left when the face is upright.
_EYES_AND_MOUTH: dict[int, tuple[Sequence[Sequence[int]], Sequence[int]]] = {
    4: (((0,), (1,)), (2, 3)),
    5: (((0,), (1,)), (3, 4)),
    68: ((range(36, 42), range(42, 48)), (48, 54)),
    468: (_MESH_EYES, (61, 291)),
}


@dataclasses.dataclass(frozen=True)
class Face:
    """A face; positions are x to the right and y down in pixels, as in `quads`.

    Attributes:
      box: [4], x1, y1, x2, y2.
      score: the finder's own measure that this is a face; a probability but for dlib's.
      landmarks: [n, 2], of each pair first the one that is left when the face is upright. 5 of
        MTCNN (eyes, nose, corners of the mouth), 6 of BlazeFace (eyes, tip of the nose, mouth,
        ears), 68 of dlib, 468 of Face Mesh; 4 are `points` themselves.
      turn: quarter turns of the image, counterclockwise, in which it was found.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    turn: int = 0

    @property
    def points(self) -> Float[np.ndarray, "4 2"]:
        """[4, 2]: the middle of the eyes and the corners of the mouth, by which faces are aligned.

        Raises:
          ValueError: BlazeFace's landmarks, which have no corners of the mouth.
        """
        if len(self.landmarks) not in _EYES_AND_MOUTH:
            raise ValueError(f"landmarks: {len(self.landmarks)}, which have no points to align by")
        eyes, mouth = _EYES_AND_MOUTH[len(self.landmarks)]
        middles = [self.landmarks[list(eye)].mean(0) for eye in eyes]
        return np.stack([*middles, *self.landmarks[list(mouth)]])


def bounding_box(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "4"]:
    """x1, y1, x2, y2 [4] of points [n, 2]."""
    return np.concatenate([points.min(0), points.max(0)])
