"""Metrics against NumPy, and the invariances their definitions promise."""

import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.evaluation.metrics import l2, latent_variance, region_distances

RNG = np.random.default_rng(0)


def mean_difference(a, b):
    """A stand-in for LPIPS."""
    return jnp.abs(a - b).mean(axis=(1, 2, 3))


@pytest.fixture
def pair():
    return RNG.uniform(-1, 1, (2, 4, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def mask():
    mask = np.zeros((4, 8, 8, 1), np.float32)
    mask[:, 2:5, 1:4] = 1.0
    return mask


def test_a_region_is_both_images_times_the_mask_over_all_pixels(pair, mask):
    a, b = pair
    found = region_distances(a, b, mask, lpips=mean_difference)
    inside = ((a - b) ** 2)[:, 2:5, 1:4].reshape(4, -1)
    np.testing.assert_allclose(found["l2"], inside.sum(1) / (8 * 8 * 3), rtol=1e-5)
    np.testing.assert_allclose(found["lpips"], np.abs((a - b) * mask).mean((1, 2, 3)), rtol=1e-5)


def test_what_lies_outside_the_mask_does_not_count(pair, mask):
    a, b = pair
    other = np.where(mask > 0, b, RNG.uniform(-1, 1, b.shape))
    before = region_distances(a, b, mask, lpips=mean_difference)
    after = region_distances(a, other, mask, lpips=mean_difference)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-5)


def test_no_mask_is_the_whole_image(pair):
    a, b = pair
    found = region_distances(a, b, None, lpips=mean_difference)
    np.testing.assert_allclose(found["l2"], ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(l2(a, a), 0.0)


def test_latent_variance_is_over_layers_then_a_mean_over_dimensions():
    w_plus = RNG.normal(size=(5, 3, 10, 16)).astype(np.float32)
    expected = [[np.mean([row.var() for row in w.T]) for w in ws] for ws in w_plus]
    np.testing.assert_allclose(latent_variance(w_plus), expected, rtol=1e-5)
    same = np.broadcast_to(w_plus[..., :1, :], w_plus.shape)
    np.testing.assert_allclose(latent_variance(same), 0.0, atol=1e-12)
