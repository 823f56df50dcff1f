"""Resizing on the device beside PIL."""

import numpy as np
import pytest

from interestyle_jax.data.images import resize_image
from interestyle_jax.inversion.resize import resize_saved

SIZES = [(64, 64, 64, 64), (96, 80, 24, 40), (50, 33, 17, 48), (20, 16, 61, 45), (7, 90, 7, 1)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_saved_images_are_resized_as_by_pil_to_the_bit(size):
    height, width, *shape = size
    rng = np.random.default_rng(height)
    images = rng.integers(0, 256, (2, 3, height, width, 3), np.uint8)
    images[0, 0] = 255 * (images[0, 0] > 127)
    found = np.asarray(resize_saved(images, tuple(shape)))
    for image, small in zip(
        images.reshape(6, *images.shape[2:]), found.reshape(6, *shape, 3), strict=True
    ):
        np.testing.assert_array_equal(small, resize_image(image, tuple(shape)))
