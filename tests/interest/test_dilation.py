"""Dilation against its definition and against SciPy."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from interestyle_jax.errors import InputError
from interestyle_jax.interest.dilation import dilate


def disk(radius):
    reach = int(radius)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return dy**2 + dx**2 <= radius**2


@pytest.mark.parametrize("radius", [1, 1.5, 2, 3.7])
def test_is_grey_dilation_by_a_disk(radius):
    rng = np.random.default_rng(0)
    mask = (rng.random((2, 13, 11, 1)) * (rng.random((2, 13, 11, 1)) > 0.9)).astype(np.float32)
    got = dilate(jax.numpy.asarray(mask), radius)
    for one, want in zip(np.asarray(got), mask, strict=True):
        want = ndimage.grey_dilation(want[..., 0], footprint=disk(radius), mode="constant")
        np.testing.assert_array_equal(one[..., 0], want)


def test_one_pixel_grows_into_the_disk():
    mask = np.zeros((1, 9, 9, 1), np.float32)
    mask[0, 4, 4] = 1
    grown = np.asarray(dilate(jax.numpy.asarray(mask), 2))[0, :, :, 0]
    assert grown.sum() == 13
    np.testing.assert_array_equal(grown[2:7, 2:7], disk(2))


def test_shifting_the_mask_shifts_the_result():
    mask = np.zeros((1, 16, 16, 1), np.float32)
    mask[0, 5:7, 6:9] = np.random.default_rng(1).random((2, 3, 1))
    moved = np.roll(mask, (3, 2), axis=(1, 2))
    got = np.roll(dilate(jax.numpy.asarray(mask), 3), (3, 2), axis=(1, 2))
    np.testing.assert_array_equal(got, dilate(jax.numpy.asarray(moved), 3))


def test_radius_zero_is_the_mask_itself():
    mask = jax.random.uniform(jax.random.key(0), (1, 4, 4, 1))
    assert dilate(mask, 0) is mask


@pytest.mark.parametrize("radius", [-1, float("nan"), float("inf")])
def test_bad_radius_is_refused(radius):
    with pytest.raises(InputError, match="dilation_radius"):
        dilate(jax.numpy.zeros((1, 4, 4, 1)), radius)
