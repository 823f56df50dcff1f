"""BlazeFace: where faces are in a photograph, and six points of each.

Source: MediaPipe's graphs `face_detection_short_range` and `face_detection` (Bazarevsky et al.
2019, arXiv:1907.05047). The network sees 128 pixels and finds faces that fill a fair part of them;
squares of half and a quarter of the photograph find smaller ones. It knows upright faces, and puts
the mouth on the forehead of one on its head: every square is seen in four turns.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interestyle_jax.data.pixels import to_float
from interestyle_jax.litert import LiteRTModel
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.quads import points_turned_back

SIZE = 128
# Cells of a side, and anchors in each.
GRIDS = ((16, 2), (8, 6))
MIN_SCORE = 0.5
MIN_OVERLAP = 0.3
# Squares of a level have this share of the longer side, and overlap by half.
LEVELS = (1.0, 0.5, 0.25)
# Faces below this share of their square are looked at again, in one of which they fill FILLED.
SMALL, FILLED = 0.25, 0.4
# Quarter turns, counterclockwise, in which the network sees a square.
TURNS = (0, 1, 2, 3)


class BlazeFaceDetector:
    """The short-range network on squares of a photograph."""

    def __init__(self, *, num_threads: int = 1):
        """Loads the network; raises InputError where LiteRT is not installed."""
        self._model = LiteRTModel("face_detection_short_range", num_threads=num_threads)
        self._anchors = anchors()

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, level: int = 0) -> list[Face]:
        """The finds in uint8 [H, W, 3] that are large enough for the level, the likeliest first.

        A face is found once in every turn in which the network takes it for one, in the wrong ones
        with its parts in wrong places: whoever calls chooses between finds that overlap.

        Args:
          image: RGB.
          level: 0 looks at the whole image, 1 and 2 at squares of half and a quarter of it.
        """
        height, width = image.shape[:2]
        found = self._look(image, squares(height, width, LEVELS[level]), TURNS)
        side = LEVELS[level] * max(height, width)
        faces: list[Face] = []
        for first in found:
            for face in self._closer(image, first) if _side(first) < SMALL * side else [first]:
                # Looked at closer, two finds may be one face.
                boxes = [other.box for other in faces if other.turn == face.turn]
                if (overlap(face.box, np.reshape(boxes, (-1, 4))) <= MIN_OVERLAP).all():
                    faces.append(face)
        return faces

    def _closer(self, image: np.ndarray, face: Face) -> list[Face]:
        """The same face in a square that it fills well, the best find of each turn.

        The old one where it is lost there.
        """
        side = max(math.ceil(_side(face) / FILLED), 1)
        left, top = (round(x) for x in (face.box[:2] + face.box[2:]) / 2 - side / 2)
        near = self._look(image, [(left, top, side)], TURNS)
        # The box of a face of few pixels may be twice too large: ask for a touch, not a match.
        same = [other for other in near if overlap(face.box, other.box[None])[0] > 0.1]
        # The likeliest of a turn goes last, and stays.
        return list({other.turn: other for other in reversed(same)}.values()) or [face]

    def _look(
        self, image: np.ndarray, places: Iterable[tuple[int, int, int]], turns: Sequence[int]
    ) -> list[Face]:
        """Finds in squares (left, top, side), each seen in these turns, the likeliest first."""
        pil = Image.fromarray(image)
        found = {turn: [np.zeros((0, 17))] for turn in turns}
        for left, top, side in places:
            # Beyond the image PIL's crop is black, as MediaPipe's border is.
            cut = pil.crop((left, top, left + side, top + side))
            small = cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0)
            x = to_float(np.asarray(small))
            for turn in turns:
                turned = np.ascontiguousarray(np.rot90(x, turn))
                raw, logits = (out[0].astype(np.float64) for out in self._model(turned[None]))
                decoded = turned_back(decode(raw, logits[:, 0], self._anchors), turn)
                decoded[:, 1:] = decoded[:, 1:] * side + np.tile([left - 0.5, top - 0.5], 8)
                found[turn].append(decoded)
        faces = [
            Face(f[1:5], float(f[0]), f[5:].reshape(6, 2), turn)
            for turn, parts in found.items()
            for f in weighted_suppression(np.concatenate(parts))
        ]
        return sorted(faces, key=lambda face: -face.score)


def _side(face: Face) -> float:
    return float((face.box[2:] - face.box[:2]).max())


def anchors() -> Float[np.ndarray, "896 2"]:
    """[896, 2]: centres of the anchors, in units of the square's side."""
    centres = []
    for cells, count in GRIDS:
        rows, columns = np.mgrid[:cells, :cells] + 0.5
        grid = np.stack([columns.ravel(), rows.ravel()], axis=1) / cells
        centres.append(np.repeat(grid, count, axis=0))
    return np.concatenate(centres)


def decode(
    raw: Float[np.ndarray, "896 16"],
    logits: Float[np.ndarray, "896"],
    centres: Float[np.ndarray, "896 2"],
) -> Float[np.ndarray, "n 17"]:
    """The network's outputs as [n, 17]: score, box, keypoints, of those above MIN_SCORE.

    Args:
      raw: [896, 16]: centre, width and height, and six points, in pixels of the network's input;
        centre and points relative to the anchor.
      logits: [896].
      centres: [896, 2], the anchors.

    Returns:
      Positions in units of the square's side.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
    keep = scores >= MIN_SCORE
    raw, centres = raw[keep] / SIZE, centres[keep]
    middle, half = raw[:, :2] + centres, raw[:, 2:4] / 2
    points = raw[:, 4:] + np.tile(centres, 6)
    return np.hstack([scores[keep, None], middle - half, middle + half, points])


def turned_back(detections: Float[np.ndarray, "n 17"], turn: int) -> Float[np.ndarray, "n 17"]:
    """[n, 17] of a square that `np.rot90` turned `turn` times -> those of the square itself.

    Positions are in units of the square's side.
    """
    points = points_turned_back(detections[:, 1:].reshape(-1, 8, 2), turn, 1, 1)
    low, high = points[:, :2].min(1), points[:, :2].max(1)
    return np.hstack([detections[:, :1], low, high, points[:, 2:].reshape(-1, 12)])


def weighted_suppression(detections: Float[np.ndarray, "n 17"]) -> Float[np.ndarray, "m 17"]:
    """[n, 17] -> [m, 17]: detections of one face become their mean, weighted by the scores.

    The best detection takes those that overlap it by more than MIN_OVERLAP (intersection over
    union), keeps its score, and so on with the rest.
    """
    rest = detections[np.argsort(-detections[:, 0], kind="stable")]
    faces = [np.zeros((0, detections.shape[1]))]
    while len(rest):
        same = overlap(rest[0, 1:5], rest[:, 1:5]) > MIN_OVERLAP
        # A box without an area overlaps nothing, not even itself.
        same[0] = True
        mean = np.average(rest[same, 1:], axis=0, weights=rest[same, 0])
        faces.append(np.concatenate([rest[0, :1], mean])[None])
        rest = rest[~same]
    return np.concatenate(faces)


def overlap(
    box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union of a box [4] with boxes [n, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    union = np.prod(np.maximum(box[2:] - box[:2], 0)) + areas - common
    return common / np.maximum(union, 1e-12)


def squares(height: int, width: int, share: float) -> Iterator[tuple[int, int, int]]:
    """left, top and side of squares that cover an image, overlapping by half.

    The side is `share` of the longer side; along an axis that is shorter there is one, centred.
    """
    side = math.ceil(share * max(height, width))

    def starts(length: int) -> list[int]:
        if length <= side:
            return [(length - side) // 2]
        count = math.ceil(2 * (length - side) / side) + 1
        return [round(x) for x in np.linspace(0, length - side, count)]

    for top in starts(height):
        for left in starts(width):
            yield left, top, side
