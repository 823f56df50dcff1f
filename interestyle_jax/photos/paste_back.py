"""Puts an aligned image back into its photograph, with a soft edge."""

import math

import numpy as np
from jaxtyping import Float, Num, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from interestyle_jax.errors import InputError
from interestyle_jax.photos.quads import quad_matrix, quad_side

SHAPES = ("square", "ellipse")
# Rows and columns repeated around the image, so that filters meet no black at its edge.
FRAME = 4
# Rows of the photograph at a time, to bound memory.
STRIP = 256


def paste_back(
    photo: UInt8[np.ndarray, "H W 3"],
    image: UInt8[np.ndarray, "S S 3"],
    quad: Num[np.ndarray, "4 2"],
    *,
    mask: Shaped[np.ndarray, "S S *one"] | None = None,
    feather: float = 0.1,
    shape: str = "square",
) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph with an image laid over one of its quads. Pure.

    The image is interpolated (bicubic), and averaged over each pixel of the photograph where it
    is finer. Pixels whose centre lies outside of the
    quad, or outside of the mask, keep their value to the bit.

    Args:
      photo: uint8 [H, W, 3].
      image: uint8 [S, S, 3], what the quad should show.
      quad: [4, 2], as `align` returns it.
      mask: [S, S, 1] or [S, S], bool, uint8 (255 = paste) or float in [0, 1]: paste only this;
        its edge is softened inwards. None pastes the whole shape.
      feather: width of the soft edge, inside the shape, as a share of the quad's side; 0 is hard.
      shape: "square", the whole quad, or the "ellipse" that touches its sides.

    Returns:
      uint8 [H, W, 3].

    Raises:
      InputError: another shape or type, or a feather outside of [0, 0.5].
    """
    check_edge(feather, shape)
    _check(photo, image, quad)
    result = photo.copy()
    quad = np.asarray(quad, np.float64)
    size = image.shape[0]
    fold = min(max(math.ceil(size / quad_side(quad)), 1), size)
    planes = [_framed(image[..., c]) for c in range(3)]
    if mask is not None:
        planes.append(_framed(soft_mask(_as_float(mask, size), feather * size)))
    matrix = quad_matrix(quad)
    inverse = np.linalg.inv(matrix[:, :2])
    left, top = np.maximum(np.ceil(quad.min(0)), 0).astype(int)
    right, bottom = np.minimum(np.floor(quad.max(0)) + 1, photo.shape[1::-1]).astype(int)
    width = max(right - left, 0)
    for first in range(top, bottom if width else top, STRIP):
        window = (slice(first, min(first + STRIP, bottom)), slice(left, right))
        old = photo[window].astype(np.float32)
        # (x, y, 1), counted from the strip's upper left edge, -> (u, v) in the unit square.
        shift = inverse @ ((left - 0.5, first - 0.5) - matrix[:, 2])
        to_unit = np.column_stack([inverse, shift])
        x, y = np.arange(width) + 0.5, np.arange(len(old))[:, None] + 0.5
        u, v = (row[0] * x + row[1] * y + row[2] for row in to_unit)
        weight = _soft_shape(u, v, feather=feather, shape=shape)
        warped = [_warp(plane, to_unit * size, (width, len(old)), fold) for plane in planes]
        if mask is not None:
            weight = weight * np.clip(warped.pop(), 0, 1)
        new = np.clip(np.stack(warped, axis=-1), 0, 255)
        blend = np.rint(old + (new - old) * weight[..., None]).astype(np.uint8)
        result[window] = np.where(weight[..., None] > 0, blend, photo[window])
    return result


def soft_mask(mask: Float[np.ndarray, "H W"], width: float) -> Float[np.ndarray, "H W"]:
    """A mask [H, W] in [0, 1] with a soft edge: 0 stays 0, the rest rises over `width` pixels."""
    # The image's own edge is the shape's to soften: the mask continues beyond it.
    margin = math.ceil(width) + 1
    around = np.pad(mask > 0, margin, "edge")
    if around.all():
        return mask
    distance = ndimage.distance_transform_edt(around)[margin:-margin, margin:-margin]
    return mask * _rise(distance, width)


def _framed(plane: np.ndarray) -> Image.Image:
    """[S, S] as floats, its edge repeated around it."""
    return Image.fromarray(np.pad(plane.astype(np.float32), FRAME, "edge"))


def _warp(framed: Image.Image, matrix: np.ndarray, sides: tuple[int, int], fold: int) -> np.ndarray:
    """A framed plane on the pixels of a strip, float32 [sides[1], sides[0]].

    Sampled `fold` times as densely as the strip's pixels and averaged. `matrix [2, 3]` leads from
    the strip to the plane without its frame.
    """
    to_framed = np.column_stack([matrix[:, :2] / fold, matrix[:, 2] + FRAME])
    fine = (sides[0] * fold, sides[1] * fold)
    image = framed.transform(
        fine, Image.Transform.AFFINE, tuple(to_framed.ravel()), Image.Resampling.BICUBIC
    )
    return np.asarray(image.reduce(fold) if fold > 1 else image)


def _soft_shape(u: np.ndarray, v: np.ndarray, *, feather: float, shape: str) -> np.ndarray:
    """Weights in [0, 1] at positions in the unit square: 0 outside of the shape."""
    if shape == "ellipse":
        inside = 0.5 - np.hypot(u - 0.5, v - 0.5)
        return _rise(inside, feather)
    # A product keeps the corners of the soft edge round.
    return _rise(np.minimum(u, 1 - u), feather) * _rise(np.minimum(v, 1 - v), feather)


def _rise(distance: np.ndarray, width: float) -> np.ndarray:
    """0 up to the edge, 1 from `width` inside, smooth at both ends."""
    if width == 0:
        return (distance >= 0).astype(np.float32)
    t = np.clip(distance / width, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _as_float(mask: np.ndarray, size: int) -> np.ndarray:
    plane = mask[..., 0] if mask.ndim == 3 and mask.shape[-1] == 1 else mask
    if plane.shape != (size, size):
        raise InputError(f"mask: shape {list(mask.shape)}, expected [{size}, {size}, 1]")
    if plane.dtype == np.uint8:
        return plane.astype(np.float32) / 255
    return np.clip(plane.astype(np.float32), 0, 1)


def check_edge(feather: float, shape: str) -> None:
    """Raises InputError unless `paste_back` takes these."""
    if not 0 <= feather <= 0.5:
        raise InputError(f"feather: {feather}, expected a share from 0 to 0.5")
    if shape not in SHAPES:
        raise InputError(f"shape: '{shape}', expected one of {', '.join(SHAPES)}")


def _check(photo: np.ndarray, image: np.ndarray, quad: np.ndarray) -> None:
    for name, array in (("photo", photo), ("image", image)):
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
            raise InputError(f"{name}: {array.dtype} {list(array.shape)}, expected uint8 [H, W, 3]")
    if image.shape[0] != image.shape[1]:
        raise InputError(f"image: {list(image.shape)}, expected a square")
    quad = np.asarray(quad)
    if quad.shape != (4, 2) or not np.isfinite(quad.astype(np.float64)).all():
        raise InputError(f"quad: {quad.tolist()}, expected four finite corners x, y")
    if abs(np.linalg.det(quad_matrix(quad.astype(np.float64))[:, :2])) < 1e-9:
        raise InputError(f"quad: {quad.tolist()}, has no area")
