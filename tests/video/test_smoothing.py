"""Smoothing over time, gaps and cuts; jitter and identity from frame to frame."""

import itertools

import numpy as np
import pytest

from interestyle_jax.photos.quads import square_quad
from interestyle_jax.video.metrics import jitter, temporal_identity
from interestyle_jax.video.scenes import change, find_cuts, runs_of
from interestyle_jax.video.smoothing import axes_of, choose_quads, follow_quads, smooth

SECONDS = np.arange(40) / 25


def quads_of(axes):
    return np.stack([square_quad(a[:2], a[2:]) for a in axes])


def moving(count=40):
    """Axes [n, 4] of a face that moves, grows and tilts evenly."""
    t = np.arange(count)
    return np.stack([50 + t, 40 - 0.5 * t, 20 + 0.1 * t, 0.2 * t], axis=1)


def test_what_moves_evenly_stays_at_uneven_times_too():
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.08, 40))
    values = np.stack([3 * seconds - 1, 5 - seconds], axis=1)
    for run in (range(0, 40), range(5, 12)):
        np.testing.assert_allclose(smooth(values, seconds, [run], 0.1), values, atol=1e-9)


def test_noise_shrinks_and_cuts_are_not_crossed():
    noise = np.random.default_rng(0).normal(0, 1, (40, 2))
    values = noise + np.where(np.arange(40) < 20, 0, 1000)[:, None]
    runs = runs_of([True] * 40, (20,))
    assert runs == [range(0, 20), range(20, 40)]
    smoothed = smooth(values, SECONDS, runs, 3 / 25)
    assert np.abs(smoothed[:20]).max() < 3 and np.abs(smoothed[20:] - 1000).max() < 3
    assert jitter(smoothed, runs) < 0.2 * jitter(values, runs)
    one = smooth(values, SECONDS, [range(0, 40)], 3 / 25)
    assert np.abs(one[:20]).max() > 100
    np.testing.assert_array_equal(smooth(values, SECONDS, runs, 0.0), values)


def test_faces_are_followed_over_short_gaps_alone():
    quads = quads_of(moving())
    truth = quads.copy()
    quads[[0, 10, 11, 12]] = np.nan
    quads[20:38] = np.nan
    followed, cuts = follow_quads(quads, SECONDS, ())
    known = np.isfinite(followed).all((1, 2))
    # Bridged where there are finds on both sides; nothing is guessed before the first.
    assert np.flatnonzero(~known).tolist() == [0, *range(20, 38)] and cuts == ()
    np.testing.assert_allclose(followed[known], truth[known], atol=1e-6)
    assert np.isnan(follow_quads(quads, SECONDS, (11,))[0][10:13]).all()
    assert np.isnan(follow_quads(quads, SECONDS, (), max_gap=0)[0][10:13]).all()
    bridged = follow_quads(quads, SECONDS, (), max_gap=9)[0][1:]
    np.testing.assert_allclose(bridged, truth[1:], atol=1e-6)


def test_noise_of_landmarks_is_smoothed_and_another_face_is_a_cut():
    axes = moving()
    noisy = axes + np.random.default_rng(0).normal(0, 1, axes.shape)
    noisy[25:, 0] += 200
    axes[25:, 0] += 200
    followed, cuts = follow_quads(quads_of(noisy), SECONDS, ())
    assert cuts == (25,)
    error = np.sqrt(((axes_of(followed) - axes) ** 2).mean(0))
    assert (error[:2] < 0.8).all() and (error[2:] < 0.6).all()
    np.testing.assert_allclose(
        follow_quads(quads_of(noisy), SECONDS, (), strength=0)[0], quads_of(noisy)
    )


def test_of_several_faces_one_is_followed():
    one, other = quads_of(moving()), quads_of(moving()) + 90
    # The other is the first candidate in every second frame.
    both = [np.stack([one[i], other[i]][:: 1 - 2 * (i % 2)]) for i in range(40)]
    both[7], both[20] = np.zeros((0, 4, 2)), other[20:21]
    chosen = choose_quads(both, SECONDS, (30,))
    # In one frame none is found, in another only the other one.
    assert np.flatnonzero(np.isnan(chosen).any((1, 2))).tolist() == [7, 20]
    np.testing.assert_array_equal(np.delete(chosen, [7, 20], 0), np.delete(one, [7, 20], 0))
    # A cut begins with the first candidate.
    both[30:] = [pair[::-1] for pair in both[30:]]
    np.testing.assert_array_equal(choose_quads(both, SECONDS, (31,))[31:], one[31:])
    np.testing.assert_array_equal(choose_quads(both, SECONDS, (30,))[30:], other[30:])
    np.testing.assert_array_equal(choose_quads(both, SECONDS, ())[30:], one[30:])


def test_a_face_that_is_gone_is_given_up_for_another():
    one, other = quads_of(moving()), quads_of(moving()) + 90
    found = [one[i : i + 1] if i < 10 else other[i : i + 1] for i in range(40)]
    chosen = choose_quads(found, SECONDS, (), max_gap=0.5)
    # After half a second at 25 frames a second.
    np.testing.assert_array_equal(chosen[:10], one[:10])
    assert np.isnan(chosen[10:22]).all()
    np.testing.assert_array_equal(chosen[22:], other[22:])
    # Also one of another size in the same place.
    found[30] = quads_of(moving() * [1, 1, 2, 2])[30:31] + 90
    assert np.isnan(choose_quads(found, SECONDS, ())[30]).all()


def test_cuts_of_frames():
    rng = np.random.default_rng(0)
    one, other, *many = rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)

    def cuts(frames):
        return find_cuts([change(a, b) for a, b in itertools.pairwise(frames)])

    assert cuts([one] * 6 + [other] * 6) == (6,)
    assert cuts([one]) == ()
    # All change, none more than its neighbours.
    assert cuts([one, other, *many]) == ()
    assert change(one, one) == 0 and change(0 * one, 0 * one + 255) == 1


def test_runs_end_at_gaps_and_cuts():
    assert runs_of([True, True, False, True, True, True], (4,)) == [
        range(0, 2),
        range(3, 4),
        range(4, 6),
    ]


def test_jitter_of_noise_and_of_even_movement():
    noise = np.random.default_rng(0).normal(0, 2, (4000, 3))
    assert jitter(noise, [range(4000)]) == pytest.approx(2 * np.sqrt(6 * 3), rel=0.05)
    assert jitter(moving(), [range(40)]) == pytest.approx(0, abs=1e-9)
    assert jitter(noise, [range(2), range(2, 4)]) is None


def test_temporal_identity():
    rng = np.random.default_rng(0)
    source = np.ones((6, 8)) / np.sqrt(8)
    edited = source + rng.normal(0, 0.1, source.shape)
    edited /= np.linalg.norm(edited, axis=1, keepdims=True)
    source[5] = np.nan
    runs = [range(0, 6)]
    same = temporal_identity(source, source, runs)
    assert same == {"local": pytest.approx(1), "global": pytest.approx(1)}
    found = temporal_identity(source, edited, runs)
    near = [edited[i] @ edited[i + 1] for i in range(4)]
    pairs = [edited[i] @ edited[j] for i in range(5) for j in range(i + 1, 5)]
    assert found["local"] == pytest.approx(np.mean(near))
    assert found["global"] == pytest.approx(np.mean(pairs))
    long = temporal_identity(np.ones((5000, 1)), np.ones((5000, 1)), [range(5000)])
    assert long == {"local": 1, "global": 1}
    assert temporal_identity(source, edited, [range(5, 6)]) == {"local": None, "global": None}
