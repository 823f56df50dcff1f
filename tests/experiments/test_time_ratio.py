"""The time of an encoder against an optimisation's, with a clock that is known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import time_ratio

START, STEP, CALL = 3.0, 0.5, 0.25


@pytest.fixture
def clock(monkeypatch):
    """An optimisation of `START` seconds and `STEP` a step, an encoder of `CALL`; the runs."""
    now, runs = [0.0], []

    def passes(seconds):
        now[0] += seconds
        return SimpleNamespace(images=np.zeros(1))

    class Optimiser:
        def __init__(self, model, recipe, **options):
            self._steps = recipe.phases[0].num_steps

        def __call__(self, key, targets):
            runs.append(self._steps)
            return passes(START + STEP * self._steps)

    monkeypatch.setattr(time_ratio, "Optimiser", Optimiser)
    monkeypatch.setattr(time_ratio.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time_ratio.jax, "block_until_ready", lambda x: x)
    model = SimpleNamespace(invert=lambda images, return_images: passes(CALL).images)
    return model, runs


def test_all_steps_are_run_and_timed(clock):
    model, runs = clock
    found = time_ratio.time_methods(model, np.zeros((2, 4, 4, 3)), vgg="x", num_steps=100)
    assert runs == [1, 100]
    method, encoder = found["image2stylegan"], found["encoder"]
    assert method["seconds_per_image"] == (START + 100 * STEP) / 2 and not method["extrapolated"]
    assert encoder["seconds_per_image"] == CALL / 2 and len(encoder["calls"]) == 10
    assert found["ratio"] == pytest.approx((START + 100 * STEP) / CALL)
    assert "212 ×" in time_ratio.sentence(found)
    assert "extrapolated" not in time_ratio.sentence(found)


def test_fewer_steps_are_extrapolated_and_it_is_said(clock):
    model, runs = clock
    images = np.zeros((2, 4, 4, 3))
    found = time_ratio.time_methods(model, images, vgg="x", num_steps=100, run_steps=5)
    assert runs == [1, 5, 1]
    method = found["image2stylegan"]
    assert method["seconds_per_image"] == pytest.approx((START + 100 * STEP) / 2)
    assert method["extrapolated"] and method["run_steps"] == 5
    assert "at 100 steps takes 26.5 s an image, extrapolated from 5 steps" in (
        time_ratio.sentence(found)
    )


def test_it_is_measured_once(clock, tmp_path, monkeypatch, capsys):
    model, runs = clock
    monkeypatch.setattr(time_ratio, "load", lambda weights: model)
    monkeypatch.setattr(
        time_ratio, "read_avatars", lambda data, count, size: {"image": np.zeros((count, 4, 4, 3))}
    )
    words = ["--data=x", f"--out={tmp_path / 'out'}", "--vgg=x", "--num-steps=10", "--run-steps=3"]
    assert time_ratio.main(words) == 0
    said = capsys.readouterr().out
    assert "extrapolated from 3 steps" in said
    assert time_ratio.main(words) == 0
    assert capsys.readouterr().out == said and runs == [1, 3, 1]
    facts = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert facts["command"][2:] == ["experiments.time_ratio", *words]
    assert time_ratio.main([*words[:-1], "--run-steps=1"]) == 2
