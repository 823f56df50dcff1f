"""Oriented squares of an image, by their corners.

Positions are x (to the right) and y (down) in pixels; the centre of the first pixel is (0, 0), as
dlib and the FFHQ recipe count. A quad is [4, 2]: the corners that become the upper left, lower
left, lower right and upper right of the square image; they lie on the outer edge of its pixels.
"""

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image


def square_quad(
    centre: Num[np.ndarray, "2"], half_axis: Num[np.ndarray, "2"]
) -> Float[np.ndarray, "4 2"]:
    """The quad around `centre` [2] whose right side lies at `centre + half_axis` [2]."""
    x = np.asarray(half_axis, np.float64)
    y = np.array([-x[1], x[0]])
    return np.asarray(centre, np.float64) + np.stack([-x - y, -x + y, x + y, x - y])


def quad_side(quad: Num[np.ndarray, "4 2"]) -> float:
    """Length of the upper edge of a quad [4, 2] in pixels."""
    return float(np.hypot(*(quad[3] - quad[0])))


def quad_matrix(quad: Num[np.ndarray, "4 2"]) -> Float[np.ndarray, "2 3"]:
    """[2, 3]: (u, v, 1) -> (x, y) for u, v in [0, 1] from the upper left corner of the square."""
    return np.stack([quad[3] - quad[0], quad[1] - quad[0], quad[0]], axis=1)


def points_turned_back(
    points: Num[np.ndarray, "*n 2"], turn: int, right: float, bottom: float
) -> Num[np.ndarray, "*n 2"]:
    """Points [..., 2] of what `np.rot90` turned `turn` times -> those of the image itself.

    Args:
      points: x, y in the turned image.
      turn: quarter turns counterclockwise, from 0 to 3.
      right: the largest x in the turned image: its width - 1 for positions as above.
      bottom: the largest y there.
    """
    x, y = np.moveaxis(np.asarray(points), -1, 0)
    for _ in range(turn):
        # Of the image one turn less, the sides are exchanged.
        x, y = bottom - y, x
        right, bottom = bottom, right
    return np.stack([x, y], axis=-1)


def cut_quad(
    image: UInt8[np.ndarray, "H W 3"],
    quad: Num[np.ndarray, "4 2"],
    size: int,
    *,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> UInt8[np.ndarray, "S S 3"]:
    """Samples a quad of uint8 [H, W, 3] as [size, size, 3], black outside of the image.

    Points are sampled, not areas: where the quad has more than `size` pixels, cut it larger and
    reduce it.
    """
    # PIL counts from the upper left edge of the first pixel.
    corners = tuple((np.asarray(quad, np.float64) + 0.5).ravel())
    pil = Image.fromarray(image)
    return np.asarray(pil.transform((size, size), Image.Transform.QUAD, corners, resample))
