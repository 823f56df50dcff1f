"""Edits of an encoder's latents in `evaluate`, and their distance from real images."""

import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.fid import Statistics
from interestyle_jax.evaluation.frechet import feature_frechet_distance, image_features
from interestyle_jax.evaluation.measurement import as_measured
from interestyle_jax.jobs import evaluations
from interestyle_jax.jobs.edited_inversions import EditedInversions
from interestyle_jax.jobs.feature_sets import FeatureSets

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tiny_weights):
    return ij.load(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def direction(tmp_path_factory):
    path = tmp_path_factory.mktemp("directions") / "older.npz"
    array = RNG.normal(size=16).astype(np.float32)
    save_direction(path, Direction("older", "w", array, unit="raw", default_range=(-2.0, 3.0)))
    return path, array


def test_the_last_latents_are_edited_and_drawn_as_measured(model, direction):
    path, array = direction
    w_plus = RNG.normal(size=(2, 3, 8, 16)).astype(np.float32)
    for text, strength in ((f"{path}:-1.5", -1.5), (str(path), 3.0)):
        edits = EditedInversions([model, model], [text])
        assert edits.labels == [f"older:{strength:+g}"]
        assert edits.outside == []
        assert edits.options[0]["strength"] == strength and len(edits.options[0]["sha256"]) == 16
        images, is_finite = edits.draw(1, model, w_plus)
        wanted = as_measured(model.synthesize(w_plus[-1] + strength * array), (32, 32))
        assert np.all(is_finite)
        np.testing.assert_allclose(images, wanted, atol=2.1 / 127.5)
        assert np.abs(np.asarray(images - wanted)).mean() < 1e-3
    (line,) = EditedInversions([model], [f"{path}:4"]).outside
    assert "older: strength +4 is outside of -2 to 3" in line
    with pytest.raises(InputError, match="expected channel:2,1:2"):
        EditedInversions([model], ["channel:2,1"])


def test_the_commands_options_are_the_jobs(tmp_path, monkeypatch):
    given = {}

    def evaluate(weights, data, out, *, edit_statistics=None, **options):
        given.update(options, edit_statistics=edit_statistics)
        return {"status": "part done", "num_images": 1, "num_left": 1}

    monkeypatch.setattr(evaluations, "evaluate", evaluate)
    words = ["evaluate", "--weights=w", "--data=d", f"--out={tmp_path}"]
    options = ["--fid-mode=lpips", "--edit=a:2", "--edit=b", "--edit-statistics=s.npz"]
    assert main([*words, *options, "--other-generator"]) == 0
    assert (given["fid_mode"], given["edits"]) == ("lpips", ["a:2", "b"])
    assert (given["edit_statistics"], given["other_generator"]) == ("s.npz", True)
    assert main(words) == 0
    assert (given["edits"], given["edit_statistics"], given["other_generator"]) == ([], None, False)


def test_edits_are_compared_with_images_that_have_what_they_give(tmp_path):
    sets = FeatureSets("lpips", "lpips_alex")
    images = RNG.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    module, variables = sets._extractor.module, sets._extractor.variables
    wanted = image_features(module, variables, images, batch_size=4)
    found = np.asarray(sets.extract(images.astype(np.float32) / 127.5 - 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # Fewer numbers than images, so that nothing has to be told.
    real, edited, with_attribute = (RNG.normal(i, 1, (9, 3)) for i in range(3))
    own = sets.statistics(real)
    told = sets.compare_edits(own, edited)
    assert told == {
        "mode": "lpips",
        "fid": pytest.approx(feature_frechet_distance(real, edited)),
        "num_reference": 9,
    }
    path = tmp_path / "statistics.npz"
    Statistics.of(with_attribute, mode="lpips", weights=sets.options["weights"]).save(path)
    given = FeatureSets("lpips", "lpips_alex", edit_statistics=path)
    assert given.options["edit_statistics"]
    distance = feature_frechet_distance(with_attribute, edited)
    assert given.compare_edits(own, edited)["fid"] == pytest.approx(distance)
    # Of the inversions themselves it changes nothing.
    assert given.compare(real, own, edited) == sets.compare(real, own, edited)
    with pytest.raises(InputError, match="FID statistics: of 3 features, expected 4"):
        given.compare_edits(own, RNG.normal(size=(9, 4)))
    assert sets.statistics(real[:1]) is None and sets.compare_edits(None, edited) is None
