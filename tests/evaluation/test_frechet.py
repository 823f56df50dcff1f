"""The Fréchet distance against closed forms, and on images that differ more or less."""

import numpy as np
import pytest
import scipy.linalg

from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.evaluation.frechet import (
    feature_frechet_distance,
    frechet_distance,
    gaussian_fit,
    image_features,
    pooled_features,
)
from interestyle_jax.weights import load_weights, resolve_weights


def random_covariance(seed: int, dimensions: int, rank: int) -> np.ndarray:
    factor = np.random.default_rng(seed).standard_normal((dimensions, rank))
    return factor @ factor.T / rank


def test_diagonal_gaussians_have_the_closed_form():
    """Commuting covariances: sum of (mean difference)^2 + (standard deviation difference)^2."""
    rng = np.random.default_rng(0)
    mean_a, mean_b = rng.standard_normal((2, 5))
    std_a, std_b = rng.uniform(0.0, 2.0, (2, 5))
    expected = np.sum((mean_a - mean_b) ** 2 + (std_a - std_b) ** 2)
    found = frechet_distance(mean_a, np.diag(std_a**2), mean_b, np.diag(std_b**2))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_full_covariances_equal_the_matrix_square_root():
    a, b = random_covariance(1, 16, 40), random_covariance(2, 16, 40)
    expected = np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    zero = np.zeros(16)
    np.testing.assert_allclose(frechet_distance(zero, a, zero, b), expected, rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(zero, b, zero, a), expected, rtol=1e-9)


def test_singular_covariances_are_sound():
    """A point mass, disjoint subspaces, and a covariance of low rank against itself."""
    a = random_covariance(3, 32, 4)
    zero = np.zeros(32)
    np.testing.assert_allclose(frechet_distance(zero, a, zero, 0 * a), np.trace(a), rtol=1e-9)
    x, y = np.diag([4.0, 0.0]), np.diag([0.0, 9.0])
    np.testing.assert_allclose(frechet_distance(np.zeros(2), x, np.zeros(2), y), 13.0)
    assert frechet_distance(zero, a, zero, a) < 1e-6 * np.trace(a)


def test_samples_approach_the_distance_of_their_gaussians():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20_000, 3))
    b = 2.0 * rng.standard_normal((20_000, 3)) + [1.0, 0.0, 0.0]
    np.testing.assert_allclose(feature_frechet_distance(a, b), 1.0 + 3.0, rtol=0.05)


@pytest.mark.parametrize(
    ("features", "message"),
    [(np.zeros((1, 4)), "n at least 2"), (np.full((3, 4), np.nan), "not finite")],
)
def test_features_that_fit_no_gaussian_are_named(features, message):
    with pytest.raises(ValueError, match=message):
        gaussian_fit(features)


def test_images_of_one_kind_are_nearer_than_blurred_ones():
    lpips, variables = load_weights(resolve_weights("lpips_alex")).part("lpips")
    rng = np.random.default_rng(0)

    def images(count):
        blocks = rng.uniform(-1, 1, (count, 8, 8, 3)).astype(np.float32)
        return to_uint8(blocks.repeat(8, axis=1).repeat(8, axis=2))

    first, second = images(64), images(64)
    blurred = second / 3 + np.roll(second, 4, axis=1) / 3 + np.roll(second, 4, axis=2) / 3
    sets = (first, second, blurred.astype(np.uint8))
    # The last batch is filled up.
    one, two, other = (image_features(lpips, variables, x, batch_size=40) for x in sets)
    assert one.shape == (64, 256)
    np.testing.assert_allclose(
        one, pooled_features(lpips, variables, to_float(first)), rtol=1e-4, atol=1e-5
    )
    same = feature_frechet_distance(one, two)
    assert 0 < 2 * same < feature_frechet_distance(one, other)
    assert feature_frechet_distance(one, one) < 1e-3 * same
