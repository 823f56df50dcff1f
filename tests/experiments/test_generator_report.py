"""The generator's report on a tiny random generator and a few avatars."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from experiments.generator_figures import draw_samples
from experiments.generator_report import (
    frechet_figures,
    generator_report,
    main,
)
from experiments.nearest import nearest_images
from experiments.training_curve import read_metrics
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.evaluation.frechet import feature_frechet_distance
from interestyle_jax.weights import ASSETS

SIZE, COUNT = 32, 10


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "avatars"
    sizes = {"train": 12, "validation": 1, "test": COUNT}
    return write_avatars(directory, sizes=sizes, size=SIZE, seed=3, clean_only=True, workers=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory whose last line was cut off."""
    folder = tmp_path_factory.mktemp("run")
    lines = [{"step": k, "loss": 2.0 / k, "d_loss": 1.0, "fake_logit": -1.0} for k in (1, 2, 3)]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + '\n{"step": 4, "lo')
    return folder


@pytest.fixture(scope="module")
def reported(avatars, run, tiny_weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    alex_again = tmp_path_factory.mktemp("weights") / "again"
    shutil.copytree(ASSETS / "lpips_alex", alex_again)
    report = generator_report(
        tiny_weights / "generator",
        avatars,
        out,
        num_samples=2000,
        num_nearest=4,
        training=run,
        batch_size=4,
        lpips=["lpips_alex", alex_again],
        command=["python", "-m", "x"],
    )
    return report, out


def test_files_and_sizes(reported):
    report, out = reported
    names = {p.name for p in out.iterdir()}
    assert names == {
        *("report.json", "table.md", "curve.png"),
        *("samples.png", "interpolation.png", "nearest.png"),
    }
    assert json.loads((out / "report.json").read_text()) == report
    figures = report["lpips_feature_frechet"]["lpips_alex"]
    assert figures["full"]["images"] == COUNT
    assert figures["half"]["images"] == COUNT // 2
    assert "not FID" in report["lpips_feature_frechet"]["note"]
    assert report["nearest_training_image"]["training_images"] == 12
    assert report["nearest_training_image"]["queries"] == 4
    assert report["last_logged"] == {"step": 3, "loss": 2 / 3, "d_loss": 1.0, "fake_logit": -1.0}
    for name in ("samples", "interpolation", "nearest", "curve"):
        with Image.open(out / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_random_samples_are_far_from_avatars_and_avatars_from_avatars_near(reported):
    figures = reported[0]["lpips_feature_frechet"]["lpips_alex"]
    assert figures["full"]["training_vs_held_out"] < figures["full"]["samples_vs_held_out"]
    assert figures["half"]["held_out_halves"] < figures["half"]["samples_vs_held_out"]


def test_the_table_says_what_it_is_not(reported):
    text = (reported[1] / "table.md").read_text()
    assert "not FID" in text
    assert f"| {COUNT} + {COUNT} |" in text
    assert "| images | lpips_alex | again |" in text
    assert f"| {COUNT // 2} + {COUNT // 2} |" in text


def test_samples_equal_the_models_own_whatever_the_batch(tiny_weights):
    import jax

    model = ij.load(tiny_weights / "generator")
    drawn = draw_samples(model, 3, seed=5, batch_size=4)
    w = model.map(jax.random.normal(jax.random.key(5), (3, 16)))
    images = model.synthesize(np.repeat(np.asarray(w)[:, None], 8, axis=1))
    expected = np.clip(np.asarray(images) * 127.5 + 127.5, 0, 255)
    assert drawn.shape == (3, 32, 32, 3)
    np.testing.assert_allclose(drawn, expected, atol=0.51)


def test_frechet_figures_pair_what_they_say():
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(k, 1, (9, 3)) for k in (0.0, 0.5, 1.0))
    figures = frechet_figures({"samples": a, "held_out": b, "training": c})
    pairs = [feature_frechet_distance(a[s], b[s]) for s in (slice(0, 4), slice(4, 8))]
    assert figures["half"]["samples_vs_held_out"] == pytest.approx(np.mean(pairs))
    assert figures["half"]["held_out_halves"] == feature_frechet_distance(b[:4], b[4:8])
    assert figures["full"]["training_vs_held_out"] == feature_frechet_distance(c, b)
    few = frechet_figures({"samples": a, "held_out": b, "training": c[:8]})
    assert few["full"]["training_vs_held_out"] is None


def test_nearest_finds_copies_also_mirrored():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    other = rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    queries = np.concatenate([images[4:5], images[1:2, :, ::-1], other])
    found = nearest_images(queries, [images[:3], images[3:]])
    np.testing.assert_array_equal(found.image[:2], queries[:2])
    assert found.distance[:2] == pytest.approx(0, abs=1e-6)
    floats = images.astype(np.float64) / 127.5 - 1
    every = [x for p in floats for x in (p, p[:, ::-1])]
    expected = min(np.mean((x - (other[0] / 127.5 - 1)) ** 2) for x in every)
    assert found.distance[2] == pytest.approx(expected, rel=1e-4)


def test_nearest_needs_images():
    with pytest.raises(ValueError, match="no images"):
        nearest_images(np.zeros((1, 4, 4, 3), np.uint8), [])


def test_bad_input_is_one_line(avatars, tiny_weights, tmp_path, capsys):
    good = [f"--weights={tiny_weights / 'generator'}", f"--data={avatars}"]
    for arguments, named in (
        ([good[0], f"--data={tmp_path / 'none'}"], "none"),
        ([*good, "--samples=2"], "num_samples"),
        ([*good, f"--training={tmp_path}"], "metrics.jsonl"),
        ([f"--weights={tmp_path / 'nothing'}", good[1]], "nothing"),
    ):
        assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_images_of_another_size_are_refused(tiny_weights, tmp_path):
    sizes = {"train": 1, "validation": 1, "test": 4}
    data = write_avatars(tmp_path / "data", sizes=sizes, size=16, clean_only=True, workers=0)
    with pytest.raises(ij.InputError, match="16x16, expected 32x32"):
        generator_report(tiny_weights / "generator", data, tmp_path / "out", num_samples=4)


def test_a_run_without_lines_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ij.InputError, match="no logged step"):
        read_metrics(tmp_path)
