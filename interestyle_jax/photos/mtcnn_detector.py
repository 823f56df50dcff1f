"""MTCNN: faces and their five landmarks in one image. Host-side NumPy around jitted networks.

Source: the `mtcnn_pytorch` that the official ID metric carries (Zhang et al. 2016,
arXiv:1604.02878).
"""

import functools
import math
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Int, Num, UInt8
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.photos.faces import Face
from interestyle_jax.weights import Weights

# The official settings. The first threshold goes with P-Net's softmax over the width.
MIN_FACE_SIZE = 20.0
THRESHOLDS = (0.15, 0.25, 0.35)
PYRAMID_FACTOR = 0.707
SCALE_OVERLAP = 0.5
STAGE_OVERLAP = 0.7
# P-Net looks at CELL pixels every STRIDE; R- and O-Net at patches of their own size.
CELL, STRIDE = 12, 2
PATCH = {"rnet": 24, "onet": 48}


class FaceDetector:
    """The three stages: P-Net on a pyramid of the image, then R- and O-Net on its proposals.

    Every size of image compiles P-Net once for each level of its pyramid. Several threads may call
    it; their networks run one after the other.
    """

    def __init__(self, weights: Weights, *, min_face_size: float = MIN_FACE_SIZE):
        """Takes the networks of an "mtcnn" weight directory.

        Args:
          weights: with the parts "pnet", "rnet" and "onet".
          min_face_size: side in pixels of the smallest face that is looked for.

        Raises:
          InputError: a part is missing, or a size that is not positive.
        """
        if not min_face_size > 0:
            raise InputError(f"min_face_size: expected a positive number, got {min_face_size}")
        parts = {name: weights.part(name) for name in ("pnet", "rnet", "onet")}
        self.networks = {name: (m, jax.device_put(v)) for name, (m, v) in parts.items()}
        # Threads that meet a size at the same time would each compile it.
        self._one_at_a_time = threading.Lock()
        self.min_face_size = min_face_size

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """The faces of an image, the likeliest first.

        Args:
          image: uint8 [H, W, 3], RGB.

        Raises:
          InputError: another shape or type.
        """
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise InputError(f"image: {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]")
        boxes = self._propose(image)
        boxes, scores, _ = self._refine(image, boxes, "rnet", THRESHOLDS[1])
        keep = non_maximum_suppression(boxes[:, :4], scores, STAGE_OVERLAP)
        boxes = squares(shifted(boxes[keep, :4], boxes[keep, 4:]))
        boxes, scores, landmarks = self._refine(image, boxes, "onet", THRESHOLDS[2])
        origin, side = boxes[:, None, :2], (boxes[:, 2:4] - boxes[:, :2] + 1)[:, None]
        landmarks = origin + side * landmarks
        boxes = shifted(boxes[:, :4], boxes[:, 4:])
        keep = non_maximum_suppression(boxes, scores, STAGE_OVERLAP, of_smaller=True)
        return [Face(boxes[i], float(scores[i]), landmarks[i]) for i in keep]

    def _propose(self, image: np.ndarray) -> np.ndarray:
        """Stage one: squares [n, 4] that may hold a face."""
        found = [np.zeros((0, 9))]
        height, width = image.shape[:2]
        for scale in pyramid(height, width, self.min_face_size):
            size = (math.ceil(width * scale), math.ceil(height * scale))
            small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
            offsets, probabilities = self._run("pnet", _normalized(np.asarray(small))[None])
            boxes = _cells(probabilities[0, :, :, 1], offsets[0], scale, THRESHOLDS[0])
            keep = non_maximum_suppression(boxes[:, :4], boxes[:, 4], SCALE_OVERLAP)
            found.append(boxes[keep])
        boxes = np.concatenate(found)
        keep = non_maximum_suppression(boxes[:, :4], boxes[:, 4], STAGE_OVERLAP)
        return squares(shifted(boxes[keep, :4], boxes[keep, 5:]))

    def _refine(
        self, image: np.ndarray, boxes: np.ndarray, name: str, threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One later stage: the boxes it keeps with their offsets [n, 8], scores, landmarks."""
        if not len(boxes):
            return np.zeros((0, 8)), np.zeros(0), np.zeros((0, 5, 2))
        patches = np.stack([patch(image, box, PATCH[name]) for box in boxes])
        # A power of two, so that few batch sizes are compiled.
        padding = (1 << (len(boxes) - 1).bit_length()) - len(boxes)
        padded = np.pad(_normalized(patches), ((0, padding), (0, 0), (0, 0), (0, 0)))
        outputs = [x[: len(boxes)] for x in self._run(name, padded)]
        scores = outputs[-1][:, 1]
        keep = scores > threshold
        landmarks = outputs[0] if name == "onet" else np.zeros((len(boxes), 10))
        landmarks = landmarks.reshape(-1, 2, 5).transpose(0, 2, 1)
        return np.hstack([boxes, outputs[-2]])[keep], scores[keep], landmarks[keep]

    def _run(self, name: str, x: np.ndarray) -> list[np.ndarray]:
        module, variables = self.networks[name]
        with self._one_at_a_time:
            outputs = jax.device_get(_apply(variables, jax.device_put(x), module=module))
        return [y.astype(np.float64) for y in outputs]


@functools.partial(jax.jit, static_argnames="module")
def _apply(variables, x, *, module):
    return module.apply(variables, x)


def _normalized(image: np.ndarray) -> np.ndarray:
    return (image.astype(np.float32) - 127.5) / 128


def pyramid(height: int, width: int, min_face_size: float) -> Iterator[float]:
    """Scales at which P-Net's cell covers faces from the smallest to the whole image."""
    scale = CELL / min_face_size
    while min(height, width) * scale > CELL:
        yield scale
        scale *= PYRAMID_FACTOR


def _cells(
    probabilities: np.ndarray, offsets: np.ndarray, scale: float, threshold: float
) -> np.ndarray:
    """P-Net's cells above the threshold as boxes of the whole image: [n, 4 + score + offsets]."""
    rows, columns = np.nonzero(probabilities > threshold)
    first = STRIDE * np.stack([columns, rows], axis=1) + 1.0
    corners = np.round(np.hstack([first, first + CELL]) / scale)
    return np.hstack([corners, probabilities[rows, columns][:, None], offsets[rows, columns]])


def non_maximum_suppression(
    boxes: Num[np.ndarray, "n 4"],
    scores: Num[np.ndarray, " n"],
    overlap: float,
    *,
    of_smaller: bool = False,
) -> Int[np.ndarray, " m"]:
    """Indices of the boxes to keep, best first: none overlaps a better one by more than `overlap`.

    Args:
      boxes: [n, 4], x1, y1, x2, y2 with both corners inside.
      scores: [n].
      overlap: largest share that two kept boxes may have in common.
      of_smaller: share of the smaller box, instead of the union.
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    order = np.argsort(-scores, kind="stable")
    keep = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.prod(np.maximum(high - low + 1, 0), axis=1)
        smaller = np.minimum(area[best], area[rest])
        whole = smaller if of_smaller else area[best] + area[rest] - common
        order = rest[common <= overlap * whole]
    return np.asarray(keep, int)


def shifted(
    boxes: Num[np.ndarray, "n 4"], offsets: Num[np.ndarray, "n 4"]
) -> Num[np.ndarray, "n 4"]:
    """Boxes [n, 4] moved by a network's offsets [n, 4], in units of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + np.hstack([sides, sides]) * offsets


def squares(boxes: Num[np.ndarray, "n 4"]) -> Num[np.ndarray, "m 4"]:
    """The smallest squares around boxes [n, 4] with their centres, rounded to pixels."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    side = sides.max(axis=1, keepdims=True)
    first = boxes[:, :2] + 0.5 * (sides - side)
    rounded = np.round(np.hstack([first, first + side - 1]))
    return rounded[rounded[:, 2] >= rounded[:, 0]]


def patch(
    image: UInt8[np.ndarray, "H W 3"], box: Num[np.ndarray, "4"], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """The box of an image, black where it reaches outside, resized to uint8 [size, size, 3]."""
    left, top, right, bottom = (int(x) for x in box)
    cut = Image.fromarray(image).crop((left, top, right + 1, bottom + 1))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))
