"""FFHQ alignment: a face turned upright into a square, by the recipe that made the data set.

Source: Karras et al. 2018 (arXiv:1710.10196, appendix C) and the official `download_ffhq.py`,
from which pSp, e4e, ReStyle and IntereStyle take their inputs.
"""

import math

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image
from scipy import fft

from interestyle_jax.errors import InputError
from interestyle_jax.photos.quads import cut_quad, quad_side, square_quad

SMALLEST, LARGEST = 16, 2048
# Samples a side and pixel before the result is reduced.
SUPERSAMPLING = 4


def face_quad(points: Num[np.ndarray, "4 2"]) -> Float[np.ndarray, "4 2"]:
    """The square of a face: [4, 2] points -> quad [4, 2], positions as in `quads`.

    Its upright direction is the mean of the eyes' normal and the line from the eyes to the mouth,
    its side the larger of 4 eye distances and 3.6 eye-mouth distances, its centre a tenth of the
    way from the eyes to the mouth.

    Args:
      points: middle of the eyes and corners of the mouth, the left one in the image first.

    Raises:
      InputError: another shape, not finite, or all in one place.
    """
    points = np.asarray(points, np.float64)
    if points.shape != (4, 2) or not np.isfinite(points).all():
        raise InputError(f"landmarks: {points.tolist()}, expected four finite points x, y")
    eyes, mouth = points[:2].mean(0), points[2:].mean(0)
    across, down = points[1] - points[0], mouth - eyes
    # The way down, turned a quarter, points across.
    direction = across + np.array([down[1], -down[0]])
    length = np.hypot(*direction)
    if not length > 0:
        raise InputError("landmarks: eyes and mouth give no direction")
    half = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    return square_quad(eyes + 0.1 * down, direction / length * half)


def quad_points(quad: Num[np.ndarray, "4 2"]) -> Float[np.ndarray, "4 2"]:
    """Points [4, 2] whose `face_quad` is this quad [4, 2]: where its face would have them.

    For quads that were smoothed over time, which no landmarks gave.
    """
    quad = np.asarray(quad, np.float64)
    across, down = (quad[3] - quad[0]) / 8, (quad[1] - quad[0]) / 3.6
    eyes = quad.mean(0) - 0.1 * down
    mouth = eyes + down
    return np.stack([eyes - across, eyes + across, mouth - across, mouth + across])


def align(
    image: UInt8[np.ndarray, "H W 3"],
    points: Num[np.ndarray, "4 2"],
    *,
    size: int = 1024,
    padding: bool = True,
) -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "4 2"]]:
    """The face of an image as FFHQ shows faces. Pure.

    Where the square reaches beyond the image, the image continues mirrored, blurred more the
    farther out, and fades into its median colour; the blur begins a little inside. Then the square
    is sampled at 4 x `size` and reduced by Lanczos.

    Args:
      image: uint8 [H, W, 3], RGB.
      points: [4, 2], as `face_quad` takes them.
      size: side of the result; FFHQ has 1024.
      padding: False leaves black what lies outside of the image.

    Returns:
      uint8 [size, size, 3] and the quad [4, 2] in the image that it shows. Where the recipe
      shrinks the image first, by a factor s, the quad is moved by up to (s - 1) / 2 pixels from
      `face_quad`'s, because the recipe counts positions from pixel centres there too.

    Raises:
      InputError: another shape or type, no face's points, or a size outside of 16 ... 2048.
    """
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise InputError(f"image: {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size: {size}, expected {SMALLEST} to {LARGEST}")
    quad = face_quad(points)
    pil, quad, scale = _shrunk(Image.fromarray(image), quad, size)
    side = quad_side(quad)
    border = max(round(side * 0.1), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    width, height = pil.size
    left, top = np.maximum(low - border, 0)
    right, bottom = np.minimum(high + border, (width, height))
    if left >= right or top >= bottom:
        raise InputError("landmarks: the face lies outside of the image")
    cut = np.asarray(pil.crop((left, top, right, bottom)))
    origin = np.array([left, top])
    local = quad - origin
    if padding:
        before = np.maximum(border - np.floor(local.min(0)).astype(int), 0)
        after = np.ceil(local.max(0)).astype(int) + border - (right - left, bottom - top)
        after = np.maximum(after, 0)
        if max(*before, *after) > border - 4:
            least = round(side * 0.3)
            before, after = np.maximum(before, least), np.maximum(after, least)
            cut = _padded(cut, before, after, blur=side * 0.02)
            local = local + before
    # Lanczos in both reductions: FFHQ itself was cut so. Later resizes are `resize_image`'s.
    large = Image.fromarray(cut_quad(cut, local, size * SUPERSAMPLING))
    aligned = np.asarray(large.resize((size, size), Image.Resampling.LANCZOS))
    return aligned, (quad + 0.5) * scale - 0.5


def _shrunk(
    image: Image.Image, quad: np.ndarray, size: int
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """The image reduced where the quad has four times `size` or more; its scale [2]."""
    shrink = math.floor(quad_side(quad) / size * 0.5)
    if shrink <= 1:
        return image, quad, np.ones(2)
    width, height = (max(1, round(side / shrink)) for side in image.size)
    reduced = (width, height)
    scale = np.array(image.size) / np.array(reduced)
    return image.resize(reduced, Image.Resampling.LANCZOS), quad / shrink, scale


def _padded(image: np.ndarray, before: np.ndarray, after: np.ndarray, *, blur: float) -> np.ndarray:
    """[H, W, 3] mirrored beyond its edges, blurred towards them and outside, faded to its median.

    Args:
      image: uint8.
      before: pixels to add on the left and at the top, positive.
      after: pixels to add on the right and at the bottom, positive.
      blur: sigma in pixels.
    """
    pads = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    padded = np.pad(image, pads, "reflect")
    height, width = padded.shape[:2]
    # 1 at the outer edge, 0 at the image's, negative inside.
    x = 1 - np.minimum(np.arange(width) / before[0], np.arange(width)[::-1] / after[0])
    y = 1 - np.minimum(np.arange(height) / before[1], np.arange(height)[::-1] / after[1])
    outside = np.maximum(x.astype(np.float32)[None, :], y.astype(np.float32)[:, None])
    blurred, faded = np.clip(outside * 3 + 1, 0, 1), np.clip(outside, 0, 1)
    # Channel by channel: large photographs as floats take much memory.
    for channel in range(3):
        plane = padded[..., channel].astype(np.float32)
        plane += (_gaussian(plane, blur) - plane) * blurred
        plane += (np.median(plane) - plane) * faded
        padded[..., channel] = np.clip(np.rint(plane), 0, 255).astype(np.uint8)
    return padded


def _gaussian(plane: np.ndarray, sigma: float) -> np.ndarray:
    """`scipy.ndimage.gaussian_filter` of float32 [H, W].

    Its mirrored boundary makes the filter a product with a cosine transform, whose cost does not
    grow with sigma: 0.3 s instead of 4 s for 3000 x 3000 x 3 values.
    """
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    taps[1:] *= 2
    taps /= taps.sum()
    spectrum = fft.dctn(plane)
    for axis, length in enumerate(plane.shape):
        angles = np.pi * np.arange(length) / length
        response = np.cos(angles[:, None] * np.arange(radius + 1)) @ taps
        spectrum *= np.expand_dims(response, 1 - axis).astype(spectrum.dtype)
    return fft.idctn(spectrum, overwrite_x=True)
