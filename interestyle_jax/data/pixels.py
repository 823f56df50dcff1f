"""8-bit pixels of files, and the floats in [-1, 1] that networks take."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", jax.Array, np.ndarray)


def to_float(pixels: Array) -> Array:
    """uint8 [...] -> float32 [...] in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_uint8(images: Array) -> Array:
    """Floats [...] in [-1, 1] -> uint8 [...], clipped and rounded to nearest, where they lie."""
    numpy: Any = jnp if isinstance(images, jax.Array) else np
    return numpy.rint(numpy.clip(images * 127.5 + 127.5, 0, 255)).astype(np.uint8)
