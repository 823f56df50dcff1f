"""Boundaries of attributes: against directions that are known, and against scikit-learn's SVC."""

import numpy as np
import pytest

from interestyle_jax.editing.boundaries import condition, cosines, mean_difference, train_boundary
from interestyle_jax.errors import InputError

D = 32


@pytest.fixture(scope="module")
def latents():
    rng = np.random.default_rng(0)
    return 3.0 + rng.normal(size=(4000, D)) * rng.uniform(0.5, 1.5, size=D)


@pytest.fixture(scope="module")
def true_direction():
    direction = np.random.default_rng(1).normal(size=D)
    return direction / np.linalg.norm(direction)


def test_finds_the_direction_of_scores(latents, true_direction):
    found = train_boundary(latents, latents @ true_direction, share=0.1)
    assert found.normal @ true_direction > 0.95
    assert np.linalg.norm(found.normal) == pytest.approx(1.0)
    assert found.held_out_accuracy > 0.98
    assert found.remaining_accuracy > 0.85
    assert found.chosen == 400


def test_agrees_with_the_official_solver(latents, true_direction):
    """InterFaceGAN trains scikit-learn's SVC with a linear kernel; the normal is the same."""
    from sklearn.svm import SVC

    rng = np.random.default_rng(2)
    scores = (latents - latents.mean(0)) @ true_direction + rng.normal(size=len(latents))
    found = train_boundary(latents, scores, share=0.1)
    order = np.argsort(-scores, kind="stable")
    ends = np.concatenate([order[:400], order[-400:]])
    held = np.random.default_rng(0).permutation(800)[240:]
    official = SVC(kernel="linear").fit(latents[ends[held]], np.repeat([1, 0], 400)[held])
    official = official.coef_[0] / np.linalg.norm(official.coef_)
    assert found.normal @ official > 0.99


def test_labels_of_two_classes_will_do(latents, true_direction):
    centred = (latents - latents.mean(0)) @ true_direction
    found = train_boundary(latents, (centred > 0).astype(float), share=0.4)
    assert found.normal @ true_direction > 0.97
    assert found.remaining_accuracy > 0.95
    unknown = np.where(np.abs(centred) < 0.5, np.nan, centred > 0)
    assert train_boundary(latents, unknown, share=0.2).normal @ true_direction > 0.9


def test_conditions_are_left_alone(true_direction):
    others = np.random.default_rng(3).normal(size=(3, D))
    found = condition(true_direction, others)
    np.testing.assert_allclose(others @ found, 0, atol=1e-12)
    assert np.linalg.norm(found) == pytest.approx(1.0)
    # With one condition, InterFaceGAN's n - (n . c) c, normalised.
    unit = others[0] / np.linalg.norm(others[0])
    official = true_direction - (true_direction @ unit) * unit
    one = condition(true_direction, others[:1])
    np.testing.assert_allclose(one, official / np.linalg.norm(official), atol=1e-12)
    # The same condition twice is one condition.
    np.testing.assert_allclose(condition(true_direction, others[[0, 0]]), one, atol=1e-12)
    np.testing.assert_allclose(np.diag(cosines(others)), 1)
    with pytest.raises(InputError, match="lies in the space of the others"):
        condition(others.sum(0), others)


def test_bad_input(latents):
    scores = np.arange(4000.0)
    with pytest.raises(InputError, match=r"scores: expected one for each of \(4000, 32\) latents"):
        train_boundary(latents, scores[1:])
    with pytest.raises(InputError, match="--share: expected above 0, at most 0.5, got 0.7"):
        train_boundary(latents, scores, share=0.7)
    with pytest.raises(InputError, match="expected two classes"):
        train_boundary(latents, np.ones(4000))
    with pytest.raises(InputError, match="expected two classes"):
        train_boundary(latents, np.full(4000, np.nan))
    with pytest.raises(InputError, match="leaves 4 at each end"):
        train_boundary(latents[:200], scores[:200])
    with pytest.raises(InputError, match="--share: both ends reach the score 0"):
        train_boundary(latents, (scores < 100).astype(float), share=0.4)


def test_a_difference_of_means_is_the_way_that_samples_take():
    """Where a second attribute moves w as well, a normal avoids it and the means do not."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, (2, 4000)).astype(float)
    ways = np.array([[3.0, 0, 0], [2.0, 2.0, 0]])
    w = np.stack([a, b], axis=1) @ ways + 0.1 * rng.normal(size=(4000, 3))
    np.testing.assert_allclose(mean_difference(w, b), ways[1], atol=0.1)
    # Scores that go together are told apart.
    joint = np.where(rng.random(4000) < 0.8, a, b)
    w = np.stack([a, joint], axis=1) @ ways + 0.1 * rng.normal(size=(4000, 3))
    assert np.abs(mean_difference(w, joint) - ways[1]).max() > 1
    np.testing.assert_allclose(mean_difference(w, joint, others=[a]), ways[1], atol=0.05)
    joint[::7] = np.nan
    np.testing.assert_allclose(mean_difference(w, joint, others=[a]), ways[1], atol=0.05)
    for others, message in ([a], "follow from"), ([], "none is known"):
        scores = a if others else np.full(4000, np.nan)
        with pytest.raises(InputError, match=message):
            mean_difference(w, scores, others=others)
