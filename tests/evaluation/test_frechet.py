"""The Fréchet distance against closed forms, and on images that differ more or less."""

import numpy as np
import pytest
import scipy.linalg

from interestyle_jax.evaluation.frechet import (
    feature_frechet_distance,
    frechet_distance,
    gaussian_fit,
    image_frechet_distance,
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
        blocks = rng.uniform(-1, 1, (count, 32, 8, 8, 3)).astype(np.float32)
        return blocks.repeat(8, axis=2).repeat(8, axis=3)

    first, second = images(2), images(2)
    blurred = (second + np.roll(second, 4, axis=2) + np.roll(second, 4, axis=3)) / 3
    same = image_frechet_distance(lpips, variables, first, second)
    other = image_frechet_distance(lpips, variables, first, blurred)
    assert 0 < 2 * same < other
    assert image_frechet_distance(lpips, variables, first, first) < 1e-3 * same
    with pytest.raises(ValueError, match="images_b: no images"):
        image_frechet_distance(lpips, variables, first, [])
