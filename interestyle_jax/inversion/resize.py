"""Images to the encoder's input shape, and the generator's square images back to that shape.

Source: the transforms of ReStyle and IntereStyle (torchvision's `Resize` on PIL images), and the
cars' crop of `utils/inference_utils.py`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.data.images import resize_image
from interestyle_jax.data.pixels import to_float

Shape = tuple[int, int]
# Of PIL's fixed-point weights.
_BITS = 22


def resize_images(images: Float[jax.Array, "B H W C"], shape: Shape) -> Float[jax.Array, "B h w C"]:
    """[B, H, W, C] -> [B, *shape, C], squeezed where the proportions differ. Pure.

    A triangle filter, widened when it reduces: `encoder_input` without its rounding.
    """
    batch, height, width, channels = images.shape
    if (height, width) == tuple(shape):
        return images
    return jax.image.resize(
        images,
        (batch, *shape, channels),
        "linear",
        antialias=True,
        precision=jax.lax.Precision.HIGHEST,
    )


def encoder_input(image: UInt8[np.ndarray, "H W 3"], shape: Shape) -> Float[np.ndarray, "h w 3"]:
    """uint8 [H, W, 3] -> float32 [*shape, 3] in [-1, 1], as the official transform does.

    On the host, where images of many sizes need no compilation each.
    """
    return to_float(resize_image(image, shape))


def resize_saved(
    images: UInt8[jax.Array, "*B H W C"], shape: Shape
) -> UInt8[jax.Array, "*B h w C"]:
    """`data.images.resize_image` on the device: uint8 [..., H, W, C] -> [..., *shape, C]. Pure.

    Equal to PIL to the bit: its fixed-point weights, rounded to 8 bits after each axis.

    Source: `ImagingResample` of Pillow's `src/libImaging/Resample.c`.
    """
    axes = ((-2, shape[1]), (-3, shape[0]))
    first_height = _resizes_height_first(images.shape[-3:-1], tuple(shape))
    for axis, size in reversed(axes) if first_height else axes:
        if images.shape[axis] != size:
            images = _resize_axis(images, axis, size)
    return images


@functools.cache
def _resizes_height_first(size: Shape, shape: Shape) -> bool:
    """Whether the installed PIL does: versions differ where the proportions change."""
    probe = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    by_height = resize_image(resize_image(probe, (shape[0], size[1])), shape)
    return np.array_equal(resize_image(probe, shape), by_height)


def _resize_axis(images: jax.Array, axis: int, size: int) -> jax.Array:
    length = images.shape[axis]
    first, weights = _taps(length, size)
    # Broadcast against what follows the axis.
    weights = weights.reshape(*weights.shape, *[1] * (-axis - 1))
    total = jnp.int32(1 << (_BITS - 1))
    for k, weight in enumerate(weights):
        # Beyond the edge the weight is 0.
        at = np.minimum(first + k, length - 1)
        total += jnp.take(images, at, axis=axis).astype(jnp.int32) * weight
    return jnp.clip(total >> _BITS, 0, 255).astype(jnp.uint8)


def _taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `size` pixels begins to look at `length`, [size], and its weights [K, size]."""
    scale = length / size
    support = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum(centre - support + 0.5, 0).astype(np.int32)
    last = np.minimum((centre + support + 0.5).astype(np.int32), length)
    pixels = first + np.arange(2 * math.ceil(support) + 1)[:, None]
    weights = np.maximum(1 - np.abs((pixels - centre + 0.5) * (1 / support)), 0) * (pixels < last)
    weights = weights / weights.sum(0)
    return first, (weights * (1 << _BITS) + 0.5).astype(np.int32)


def crop_to_shape(
    images: Float[jax.Array, "*B R R C"], shape: Shape
) -> Float[jax.Array, "*B h w C"]:
    """The middle of square images [..., R, R, C] that has the shape's proportions.

    Official cars: 512 x 512 images for a 192 x 256 encoder keep rows 64 to 448.

    Raises:
      ValueError: the proportions are no whole number of pixels.
    """
    side, longer = images.shape[-2], max(shape)
    for axis, length in zip((-3, -2), shape, strict=True):
        keep, rest = divmod(side * length, longer)
        if rest or (side - keep) % 2:
            raise ValueError(f"image of {side} pixels has no middle part of shape {shape}")
        first = (side - keep) // 2
        images = jax.lax.slice_in_dim(images, first, first + keep, axis=images.ndim + axis)
    return images
