"""Images to the encoder's input shape, and the generator's square images back to that shape.

Source: the transforms of ReStyle and IntereStyle (torchvision's `Resize` on PIL images), and the
cars' crop of `utils/inference_utils.py`.
"""

import jax
import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.data.images import resize_image
from interestyle_jax.data.pixels import to_float

Shape = tuple[int, int]


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
