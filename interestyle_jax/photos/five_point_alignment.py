"""Aligns faces for the ID metric: five landmarks onto ArcFace's reference points, by a similarity.

Source: the `align_trans.py` that the official ID metric carries.
"""

import numpy as np
from jaxtyping import Float, Num, UInt8

from interestyle_jax.errors import InputError

SIZE = 112
# Where ArcFace expects the eyes, the nose and the corners of the mouth (the left one in the
# image first) in a face of 112 pixels.
REFERENCE = np.array(
    [
        [38.29459953, 51.69630051],
        [73.53179932, 51.50139999],
        [56.02519989, 71.73660278],
        [41.54930115, 92.36550140],
        [70.72990036, 92.20410156],
    ]
)


def similarity(
    source: Num[np.ndarray, "n 2"], target: Num[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
    """The rotation, scale and shift (no mirroring) that bring points nearest to others.

    Args:
      source: [n, 2], x and y; not all the same point.
      target: [n, 2].

    Returns:
      [2, 3]: target ~ matrix @ (x, y, 1), least squares in the target's pixels.

    Raises:
      InputError: other shapes, or all source points in one place.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.ndim != 2 or source.shape[1] != 2 or source.shape != target.shape:
        raise InputError(f"points: shapes {source.shape} and {target.shape}, expected [n, 2] twice")
    # As complex numbers such a map is z -> turn * z + shift, a line fit.
    z, w = source @ (1, 1j), target @ (1, 1j)
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if not spread > 0:
        raise InputError("points: all source points are one, expected a spread")
    turn = np.vdot(centred, w - w.mean()) / spread
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align_face(
    image: UInt8[np.ndarray, "H W 3"], landmarks: Num[np.ndarray, "5 2"], *, size: int = SIZE
) -> UInt8[np.ndarray, "S S 3"]:
    """A face moved onto the reference points: uint8 [H, W, 3] -> uint8 [size, size, 3].

    The similarity is fitted from the reference to the landmarks, that is in pixels of the image,
    as the official code does. Bilinear interpolation, black outside of the image. The official
    warp rounds positions to 1/32 pixel, this one does not.

    Args:
      image: RGB.
      landmarks: [5, 2], as `faces.Face` has them.
      size: side of the result; the reference points scale with it.

    Raises:
      InputError: another shape or type.
    """
    if image.ndim != 3 or image.dtype != np.uint8:
        raise InputError(f"image: {image.dtype} {list(image.shape)}, expected uint8 [H, W, C]")
    matrix = similarity(REFERENCE * (size / SIZE), landmarks)
    rows, columns = np.mgrid[:size, :size]
    x, y = np.tensordot(matrix[:, :2], np.stack([columns, rows]), 1) + matrix[:, 2, None, None]
    return np.floor(_bilinear(image, x, y) + 0.5).astype(np.uint8)


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values [..., C] at positions x, y (pixel centres are whole numbers); 0 beyond the edge."""
    height, width = image.shape[:2]
    # A frame of zeros; positions beyond it are moved onto it.
    framed = np.pad(image.astype(np.float64), ((1, 2), (1, 2), (0, 0)))
    x, y = np.clip(x, -1, width) + 1, np.clip(y, -1, height) + 1
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = (x - column)[..., None], (y - row)[..., None]
    top = framed[row, column] * (1 - right) + framed[row, column + 1] * right
    bottom = framed[row + 1, column] * (1 - right) + framed[row + 1, column + 1] * right
    return top * (1 - down) + bottom * down
