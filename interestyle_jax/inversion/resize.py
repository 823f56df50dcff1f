"""Antialiased bilinear resizing, inside `jit` and on the host: the same filter twice."""

import jax
import numpy as np
from PIL import Image


def resize_images(images: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] -> [B, size, size, C]; squeezed where not square. Pure.

    A triangle filter, widened when it reduces, as torchvision's `Resize` does with pictures.
    """
    batch, height, width, channels = images.shape
    if (height, width) == (size, size):
        return images
    shape = (batch, size, size, channels)
    return jax.image.resize(images, shape, "linear", antialias=True)


def encoder_input(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [size, size, 3] in [-1, 1], without rounding.

    For pictures of many sizes, which inside `jit` would need a compilation each.
    """
    scaled = picture.astype(np.float32) / 127.5 - 1
    if picture.shape[:2] == (size, size):
        return scaled
    planes = [Image.fromarray(np.ascontiguousarray(scaled[..., c])) for c in range(3)]
    resized = [plane.resize((size, size), Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)
