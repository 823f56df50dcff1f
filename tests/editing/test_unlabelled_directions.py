"""SeFa and GANSpace: against their definitions, and what they find in the shipped generator."""

import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.editing.ganspace import principal_components
from interestyle_jax.editing.sefa import sefa, style_matrices
from interestyle_jax.errors import InputError


@pytest.fixture(scope="module")
def parameters():
    rng = np.random.default_rng(0)
    names = ("conv_4", "up_8", "conv_8", "up_16", "conv_16")
    layers = {n: {"conv": {"modulation": {"kernel": rng.normal(size=(8, 6))}}} for n in names}
    return layers | {"mapping": {}, "rgb_4": {}}


def test_sefa_is_the_official_decomposition(parameters):
    """As `sefa.py` does it: transposed weights of unit columns, eigenvectors of M^T M."""
    rows = [1, 2, 4]
    weights = [style_matrices(parameters)[row].T for row in rows]
    stacked = np.concatenate(weights, axis=0)
    stacked = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(stacked.T @ stacked)
    found, shares = sefa(parameters, rows=rows, count=3)
    for i, direction in enumerate(found):
        assert abs(direction @ vectors[:, -1 - i]) == pytest.approx(1.0)
        assert direction[np.abs(direction).argmax()] > 0
    np.testing.assert_allclose(shares, values[::-1][:3] / values.sum())


def test_sefa_moves_the_chosen_layers_most(parameters):
    """The first direction changes the normalised styles more than any random one."""
    (first,), _ = sefa(parameters, rows=[0], count=1)
    matrix = style_matrices(parameters)[0]
    matrix = matrix / np.linalg.norm(matrix, axis=0)
    random = np.random.default_rng(1).normal(size=(1000, 8))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    assert np.linalg.norm(first @ matrix) > np.linalg.norm(random @ matrix, axis=1).max()


def test_sefa_of_the_shipped_generator():
    model = ij.load("avatar_generator")
    found, shares = sefa(model.variables["generator"]["params"], rows=range(4), count=5)
    assert found.shape == (5, 512)
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-8)
    assert (np.diff(shares) <= 0).all() and shares[0] > 5 / 512


def test_sefa_bad_input(parameters):
    for rows in ([6], [-1], []):
        with pytest.raises(InputError, match="--rows: expected some of 0 to 5"):
            sefa(parameters, rows=rows, count=1)
    with pytest.raises(InputError, match="row 5 draws toRGB alone"):
        sefa(parameters, rows=[5], count=1)
    with pytest.raises(InputError, match="--count: expected 1 to 8, got 9"):
        sefa(parameters, rows=[0], count=9)


def test_components_are_scikit_learns():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    w = 100 + rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12))
    found = principal_components(np.split(w, 10), count=4)
    pca = PCA(4, svd_solver="full").fit(w)
    np.testing.assert_allclose(found.mean, pca.mean_)
    np.testing.assert_allclose(np.abs((found.directions * pca.components_).sum(1)), 1, atol=1e-9)
    np.testing.assert_allclose(found.deviations**2, pca.explained_variance_)
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_)
    # However the latents are batched.
    again = principal_components([w[:7], w[7:450], w[450:]], count=4)
    np.testing.assert_allclose(again.directions, found.directions, atol=1e-9)


def test_components_bad_input():
    with pytest.raises(InputError, match="--count: expected 1 to 3, for 4 latents, got 5"):
        principal_components([np.eye(4)], count=5)
    with pytest.raises(InputError, match="--count: expected 1 to 0, for 0 latents"):
        principal_components([], count=5)
