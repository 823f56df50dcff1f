"""Directions of the shipped generator: what is trained changes what was scored."""

import json

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.editing import direction_effects as effects
from interestyle_jax.editing import direction_training as training
from interestyle_jax.editing.directions import load_direction
from interestyle_jax.editing.scores import write_scores
from interestyle_jax.errors import InputError


@pytest.fixture(scope="module")
def model():
    return ij.load("avatar_generator")


def colours(images):
    """Scores that are known of any image: how light it is, and how red its middle."""
    middle = images[:, 24:40, 24:40]
    return {
        "light": images.mean((1, 2, 3)).astype(np.float64),
        "red": (middle[..., 0] - middle[..., 2]).mean((1, 2)).astype(np.float64),
    }


@pytest.fixture(scope="module")
def sampled(model):
    key = jax.random.key(0)
    batches = list(training.sample_w(key, model, 600, truncation_psi=1.0, batch_size=64))
    assert [len(batch) for batch in batches] == [64] * 9 + [24]
    w = np.concatenate([np.asarray(batch) for batch in batches])
    return w, training.score_w(model, w, colours, batch_size=64)


@pytest.fixture(scope="module")
def trained(model, sampled):
    return training.train_directions(
        *sampled,
        share=0.2,
        seed=0,
        conditions={"red": ["light"]},
        generator=model.generator_fingerprint,
        source="test",
    )


def test_scores_do_not_depend_on_the_batches(model, sampled):
    w, scores = sampled
    again = training.score_w(model, w[:50], colours, batch_size=13)
    for name, values in again.items():
        np.testing.assert_allclose(values, scores[name][:50], atol=1e-5)


def test_directions_change_what_was_scored(model, sampled, trained):
    moved = effects.changes(model, sampled[0][:64], trained.directions, colours, batch_size=64)
    assert moved["light"]["light"] > 0.1
    assert moved["red"]["red"] > 0.05
    # Chance is a half; 240 latents of 512 numbers leave much open.
    assert all(b.held_out_accuracy > 0.6 for b in trained.boundaries)


def test_conditions_and_what_is_recorded(model, trained):
    light, red = trained.directions
    assert abs(red.array @ trained.boundaries[0].normal) < 1e-6
    np.testing.assert_allclose(light.array, trained.boundaries[0].normal, atol=1e-7)
    assert light.norm == pytest.approx(1) and red.norm == pytest.approx(1)
    assert light.default_range[1] == pytest.approx(3 * light.extra["deviation_of_w"])
    assert red.extra["conditions"] == ["light"]
    assert red.generator == model.generator_fingerprint
    with pytest.raises(InputError, match="--condition: red on 'hat', expected some of light"):
        training.train_directions(
            np.eye(600), {"light": np.arange(600.0), "red": np.arange(600.0)},
            share=0.2, seed=0, conditions={"red": ["hat"]}, generator=None, source="",
        )  # fmt: skip


def test_a_deviation_is_measured_in_strengths():
    w = np.random.default_rng(0).normal(0, [2.0, 5.0, 1.0], (20_000, 3))
    along = training.deviation_along(w, np.array([4.0, 0.0, 0.0]))
    assert along == pytest.approx(2 / 4, rel=0.02)
    # A strength of 1 moves the second row farthest, by 10; rows that cancel out are no harm.
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.0, -10.0, 0.0], [0.0, 0.0, 0.0]])
    assert training.deviation_along(w, rows) == pytest.approx(5 / 10, rel=0.02)


def test_the_command_trains_from_files(model, sampled, tmp_path, capsys):
    w, scores = sampled
    np.savez(tmp_path / "w.npz", w=w)
    write_scores(tmp_path / "scores.csv", scores)
    arguments = ["directions", "train", "--weights=avatar_generator", "--share=0.2"]
    arguments += [f"--latents={tmp_path / 'w.npz'}", f"--scores={tmp_path / 'scores.csv'}"]
    arguments += ["--attribute=light", "--attribute=red", "--condition=red:light"]
    assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    direction = load_direction(tmp_path / "out" / "light.npz")
    assert direction.name == "light" and direction.kind == "w"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["name"] for one in report["directions"]] == ["light", "red"]
    assert report["cosines"]["light"]["light"] == pytest.approx(1)
    assert "| light |" in (tmp_path / "out" / "table.md").read_text()
    capsys.readouterr()
    for bad, message in [
        ("--condition=red", "--condition: 'red', expected NAME:OTHER"),
        ("--attribute=light", "are not all of one name each"),
        ("--latents=none.npz", "none.npz: not a readable .npz"),
    ]:
        assert main([*arguments, bad, f"--out={tmp_path / 'x'}"]) == 2
        assert message in capsys.readouterr().err
    without = [x for x in arguments if not x.startswith("--latents")]
    assert main([*without, f"--out={tmp_path / 'x'}"]) == 2
    assert "needs --latents" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_latents_of_other_shapes(model, tmp_path):
    w = np.random.default_rng(0).normal(size=(4, 10, 512)).astype(np.float32)
    np.savez(tmp_path / "a.npz", w_plus=w)
    np.testing.assert_array_equal(training.read_w(tmp_path / "a.npz", model), w[:, 0])
    np.savez(tmp_path / "b.npz", w_plus=np.stack([0 * w, w], axis=1))
    np.testing.assert_array_equal(training.read_w(tmp_path / "b.npz", model), w[:, 0])
    np.savez(tmp_path / "c.npz", w=w[:, 0, :100])
    with pytest.raises(InputError, match=r"w of shape \(4, 100\), expected finite \[N, 512\]"):
        training.read_w(tmp_path / "c.npz", model)
    np.savez(tmp_path / "d.npz", x=w)
    with pytest.raises(InputError, match="expected an array w or w_plus, got"):
        training.read_w(tmp_path / "d.npz", model)
    np.savez(tmp_path / "e.npz", w_plus=w, generator=model.generator_fingerprint)
    np.testing.assert_array_equal(training.read_w(tmp_path / "e.npz", model), w[:, 0])
    np.savez(tmp_path / "f.npz", w_plus=w, generator="0" * 16)
    with pytest.raises(InputError, match="f.npz: was made with generator 0000000000000000, these"):
        training.read_w(tmp_path / "f.npz", model)


def test_sefa_and_ganspace_by_command(tmp_path):
    arguments = ["--weights=avatar_generator", f"--out={tmp_path}"]
    assert main(["directions", "sefa", "--rows=0-3", "--count=2", *arguments]) == 0
    first = load_direction(tmp_path / "sefa_0-3_1.npz")
    assert first.rows == (0, 1, 2, 3) and first.norm == pytest.approx(1)
    samples = ["--num-samples=300", "--count=3"]
    assert main(["directions", "ganspace", *samples, *arguments]) == 0
    widest, second = (load_direction(tmp_path / f"ganspace_{i}.npz") for i in (1, 2))
    assert widest.unit == "std" and widest.origin is not None and widest.norm > second.norm
    assert (tmp_path / "ganspace_3.npz").is_file()
