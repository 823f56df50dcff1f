"""Uninterest swap: what stays, what changes, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.interest.uninterest_swap import swap_uninterest, swapped_pairs


@pytest.fixture
def batch():
    key = jax.random.key(0)
    image = jax.random.uniform(key, (64, 4, 4, 3), minval=-1, maxval=1)
    mask = jnp.zeros((64, 4, 4, 1)).at[:, 1:3, 1:3].set(1.0)
    return image, mask


def test_the_interest_region_stays_and_the_rest_is_the_next_image(batch):
    image, mask = batch
    swapped = swap_uninterest(jax.random.key(1), image, mask, share=1.0)
    inside = np.broadcast_to(np.asarray(mask) == 1, image.shape)
    np.testing.assert_array_equal(np.asarray(swapped)[inside], np.asarray(image)[inside])
    following = np.roll(np.asarray(image), -1, axis=0)
    np.testing.assert_array_equal(np.asarray(swapped)[~inside], following[~inside])


def test_a_share_of_the_samples_is_swapped_and_the_others_are_untouched(batch):
    image, mask = batch
    swapped = swap_uninterest(jax.random.key(2), image, mask, share=0.5)
    changed = np.any(np.asarray(swapped) != np.asarray(image), axis=(1, 2, 3))
    assert 16 < changed.sum() < 48


def test_share_zero_gives_the_image_itself(batch):
    image, mask = batch
    assert swap_uninterest(jax.random.key(3), image, mask, share=0.0) is image


def test_soft_masks_mix(batch):
    image, mask = batch
    half = jnp.full_like(mask, 0.25)
    swapped = swap_uninterest(jax.random.key(4), image, half, share=1.0)
    np.testing.assert_allclose(
        swapped, 0.25 * image + 0.75 * jnp.roll(image, -1, axis=0), rtol=1e-6
    )


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_of_its_range_is_refused(batch, share):
    with pytest.raises(InputError, match="swap: expected a share"):
        swap_uninterest(jax.random.key(5), *batch, share=share)


def test_a_mask_of_another_size_is_refused(batch):
    image, _ = batch
    with pytest.raises(InputError, match="mask: expected"):
        swap_uninterest(jax.random.key(6), image, jnp.ones((64, 2, 2, 1)), share=1.0)


def test_pairs_are_every_image_and_its_swapped_form(batch):
    image, mask = batch
    seen, target, masks = swapped_pairs(image, mask)
    np.testing.assert_array_equal(seen[::2], image)
    swapped = swap_uninterest(jax.random.key(7), image, mask, share=1.0)
    np.testing.assert_array_equal(seen[1::2], swapped)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        np.testing.assert_array_equal(target[rows], image)
        np.testing.assert_array_equal(masks[rows], mask)
