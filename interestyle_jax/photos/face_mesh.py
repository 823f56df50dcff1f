"""Face Mesh: 468 points of a face, and whether there is one.

Source: MediaPipe's graphs `face_landmark` and `face_detection_front_detection_to_roi` (Kartynnik et
al. 2019, arXiv:1907.06724).
"""

import math

import numpy as np
from jaxtyping import Float, Num, UInt8

from interestyle_jax.litert import LiteRTModel
from interestyle_jax.photos.faces import bounding_box
from interestyle_jax.photos.quads import cut_quad, quad_matrix, quad_side, square_quad

SIZE = 192
# The region is the face's longer side times this.
MARGIN = 1.5
# Outer corners of the eyes, the left one in the image first.
EYE_CORNERS = (33, 263)


class FaceMesh:
    """The network of 468 points on the region of a face."""

    def __init__(self, *, num_threads: int = 1):
        """Loads the network; raises InputError where LiteRT is not installed."""
        self._model = LiteRTModel("face_landmark", num_threads=num_threads)

    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        box: Num[np.ndarray, "4"],
        eyes: Num[np.ndarray, "2 2"],
    ) -> tuple[Float[np.ndarray, "468 2"], float]:
        """The points of the face in a region, after a second look at the region they suggest.

        Args:
          image: uint8 [H, W, 3], RGB.
          box: [4], x1, y1, x2, y2 of the face.
          eyes: [2, 2], the left one in the image first; their line is the face's horizontal.

        Returns:
          The points [468, 2], positions as in `quads`, and the probability that a face is there.
        """
        points, _ = self._look(image, region(box, eyes))
        return self._look(image, region(bounding_box(points), points[list(EYE_CORNERS)]))

    def glance(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        box: Num[np.ndarray, "4"],
        eyes: Num[np.ndarray, "2 2"],
    ) -> tuple[Float[np.ndarray, "468 2"], float]:
        """As a call, but the first look alone, at few samples: points [468, 2] and probability.

        Args:
          image: uint8 [H, W, 3], RGB.
          box: [4], x1, y1, x2, y2 of the face.
          eyes: [2, 2].
        """
        return self._look(image, region(box, eyes), most=1)

    def _look(
        self, image: np.ndarray, quad: np.ndarray, *, most: int = 16
    ) -> tuple[np.ndarray, float]:
        # Cut larger and averaged, where a pixel of the input covers several of the image.
        fold = min(max(math.ceil(quad_side(quad) / SIZE), 1), most)
        cut = cut_quad(image, quad, SIZE * fold)
        # Faster than a mean over two axes, twenty times for large faces, and the same to the bit.
        rows = cut.reshape(SIZE, fold, -1).sum(1, dtype=np.uint16).reshape(SIZE, SIZE, fold, 3)
        small = sum(rows[:, :, i].astype(np.float32) for i in range(fold)) / fold**2
        raw, logit = self._model(small[None] / 255)
        points = raw.reshape(468, 3)[:, :2].astype(np.float64) / SIZE
        matrix = quad_matrix(quad)
        return points @ matrix[:, :2].T + matrix[:, 2], _sigmoid(float(logit.ravel()[0]))


def region(box: Num[np.ndarray, "4"], eyes: Num[np.ndarray, "2 2"]) -> Float[np.ndarray, "4 2"]:
    """The quad that the network sees: around the box's centre, turned so that the eyes are level.

    Its side is 1.5 times the longer side of the box [4] (left, top, right, bottom). Eyes are
    [2, 2], the quad [4, 2].
    """
    turn = eyes[1] - eyes[0]
    length = float(np.hypot(*turn))
    direction = turn / length if length > 0 else np.array([1.0, 0.0])
    side = MARGIN * max(box[2] - box[0], box[3] - box[1])
    return square_quad((box[:2] + box[2:]) / 2, direction * side / 2)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-min(max(x, -100.0), 100.0)))
