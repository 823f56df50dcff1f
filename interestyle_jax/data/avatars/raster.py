"""From SVG text to arrays, and from large arrays to small ones."""

import io
import math

import numpy as np
import resvg_py
from jaxtyping import Float, Num, UInt8
from PIL import Image


def rasterise(svg: str) -> UInt8[np.ndarray, "H W 4"]:
    """Draws SVG text without any system font: uint8 RGBA [H, W, 4], alpha not premultiplied."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def document(body: str, size: int) -> str:
    """Wraps SVG elements, in pixels, into a document of size x size."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" '
        f'width="{size}" height="{size}">{body}</svg>'
    )


def supersampling(size: int) -> int:
    """How many times larger an image of `size` pixels is drawn before it is averaged down."""
    return max(2, math.ceil(128 / size))


def shrink(image: Num[np.ndarray, "S S C"], size: int) -> Float[np.ndarray, "s s C"]:
    """Area average of [S, S, C] to [size, size, C]; S is a multiple of size."""
    factor = image.shape[0] // size
    return image.reshape(size, factor, size, factor, -1).mean(axis=(1, 3))


def to_uint8(image: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Floats in [0, 1] (clipped) to uint8, rounded half up."""
    return np.floor(np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
