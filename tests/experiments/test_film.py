"""The film of an avatar: its truth is true, what is measured, and the whole script."""

import json

import numpy as np
import pytest

from experiments.avatar_film import draw_film, found_points
from experiments.film import VARIANTS, main
from experiments.film_metrics import flicker
from interestyle_jax.photos.ffhq_alignment import align, face_quad, quad_points


@pytest.fixture(scope="module")
def film():
    return draw_film(6, 8)


def test_the_true_squares_show_the_clean_avatar(film):
    assert film.frames.shape == (8, 168, 256, 3) and film.frames.dtype == np.uint8
    # The obstacle passes in the middle.
    assert film.hidden[0] == film.hidden[7] == 0 and 0.05 < film.hidden[4] < 0.9
    for i in np.flatnonzero(film.hidden == 0):
        crop = align(film.frames[i], quad_points(film.quads[i]), size=64)[0]
        # The frame has twice the crop's pixels: edges are blurred a little.
        off = np.abs(crop.astype(int) - film.clean[i])[film.interest[i]]
        assert off.mean() < 8 and np.percentile(off, 75) < 8
    # The avatar moves, and tilts inside of its squares.
    assert np.ptp(film.quads[:, 0], axis=0).max() > 5
    assert (film.clean[0] != film.clean[1]).any()


def test_landmarks_are_the_truth_with_noise(film):
    points = found_points(film, noise=0.0)
    # Of eight frames the fifth lies where the face is not found.
    assert [p is None for p in points] == [i == 4 for i in range(8)]
    np.testing.assert_allclose(face_quad(points[2]), film.quads[2])
    noisy = found_points(film, noise=1.0)
    assert 0.3 < np.std([a - b for a, b in zip(noisy, points, strict=True) if a is not None]) < 2


def test_flicker_counts_what_the_avatar_does_not_do(film):
    runs = [range(8)]
    assert flicker(film.clean.astype(float), film, runs) == 0
    assert flicker(film.clean + 10.0, film, runs) == 0
    noise = np.random.default_rng(0).normal(0, 3, film.clean.shape)
    assert flicker(film.clean + noise, film, runs) == pytest.approx(3 * np.sqrt(6), rel=0.05)


@pytest.mark.slow
def test_the_script(tmp_path, capsys):
    assert main([f"--out={tmp_path}", "--num-frames=20", "--steps=1", "--tune-passes=0"]) == 0
    report = json.loads((tmp_path / "metrics.json").read_text())
    variants = report["variants"]
    assert list(variants) == [name for name, (_, tuned) in VARIANTS.items() if not tuned]
    raw, smoothed = variants["frame by frame"], variants["squares, latents (default)"]
    assert smoothed["jitter"]["quads"]["smoothed"] < 0.5 * raw["jitter"]["quads"]["found"]
    for key in ("inversion", "edit"):
        assert smoothed[key]["flicker"] < raw[key]["flicker"]
        assert smoothed[key]["lpips_to_next"] < raw[key]["lpips_to_next"]
    assert raw["quad_errors"]["used"] == pytest.approx(raw["quad_errors"]["found"], rel=0.05)
    assert report["references"]["the avatar itself"]["lpips"]["clear"] == pytest.approx(0, abs=1e-6)
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "strip.png").exists() and (tmp_path / "slices.png").exists()
