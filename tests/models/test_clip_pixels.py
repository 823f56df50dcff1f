"""CLIP's preprocessing against Pillow's, and StyleCLIP's against its definition."""

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.models.clip import MEAN, STD
from interestyle_jax.models.clip_pixels import area_pixels, clip_pixels


@pytest.mark.parametrize("shape", [(48, 61), (75, 40), (32, 32), (20, 24)])
def test_preprocessing_is_that_of_files(shape):
    size = 32
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(small).resize(shape[::-1], Image.Resampling.BILINEAR)
    # What torchvision's Resize and CenterCrop do.
    short = min(shape)
    whole = tuple(int(size * side / short) for side in shape)
    resized = picture.resize(whole[::-1], Image.Resampling.BICUBIC)
    top, left = (int(round((side - size) / 2.0)) for side in whole)
    cut = np.asarray(resized, np.float32)[top : top + size, left : left + size] / 255
    want = (cut - MEAN) / STD
    images = np.asarray(picture, np.float32)[None] / 127.5 - 1
    got = jax.jit(lambda x: clip_pixels(x, size, mean=MEAN, std=STD))(images)[0]
    assert got.shape == (size, size, 3)
    # Pillow rounds to 256 steps between its two passes, and after them.
    assert np.abs(got - want).max() < 2 / 255 / min(STD)


@pytest.mark.parametrize("side", [32, 64, 8])
def test_areas_are_sevenfold_pixels_pooled(side):
    """`side` of a generator, a seventh of whose sevenfold is its part of 32."""
    image = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)
    large = image.repeat(7, axis=1).repeat(7, axis=2)
    size = 28
    pool = 7 * side // size
    cells = large.reshape(1, size, pool, size, pool, 3)
    got = jax.jit(lambda x: area_pixels(x, size))(image)
    np.testing.assert_allclose(got, cells.mean(axis=(2, 4)), atol=1e-5)
