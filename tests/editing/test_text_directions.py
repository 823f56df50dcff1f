"""Directions in W for texts, from covariances of w and CLIP's features over samples."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.editing.clip import load_clip
from interestyle_jax.editing.styleclip.global_directions import text_direction
from interestyle_jax.editing.text_directions import FeatureCovariances, measure_covariances
from interestyle_jax.editing.text_sources import check_text_source, load_text_source
from interestyle_jax.errors import InputError
from interestyle_jax.weights import digest, load_weights
from tests.editing.test_styleclip import NETWORK, drawn

SAMPLES = 10
TEXT = "a face with a beard"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text_directions")


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(drawn(NETWORK, "clip", folder / "clip"))


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return str(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def covariances(weights, clip, folder):
    options = ["--num-samples=10", "--batch-size=4", "--dtype=bfloat16", "--licence=own"]
    own = [f"--weights={weights}", f"--clip={clip.directory}", f"--out={folder / 'texts'}"]
    assert main(["directions", "text", *own, *options]) == 0
    return folder / "texts"


def planted(count=2000):
    """w of 5 numbers; a feature of 3 that follows w's first, second and third, which correlate."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(count, 5)) * [3, 1, 1, 1, 1]
    w[:, 1] += w[:, 0]
    features = 0.1 * w[:, :3] @ np.diag([1, 2, 1])
    w, centred = w - w.mean(0), features - features.mean(0)
    return FeatureCovariances(w.T @ centred / count, centred.T @ centred / count), centred


def test_the_score_moves_and_the_rest_of_the_feature_stays():
    found, features = planted()
    text = np.array([0.0, 1.0, 0.0])
    direction = found.direction(text, name="text", ridge=0)
    moved = 0.1 * direction.array[:3] @ np.diag([1, 2, 1])
    deviation = features[:, 1].std()
    np.testing.assert_allclose(moved, [0, deviation, 0], atol=1e-6)
    # Without holding the rest still, samples with the text's score have their first number too.
    loose = found.direction(text, name="text", ridge=1e9)
    moved = 0.1 * loose.array[:3] @ np.diag([1, 2, 1])
    np.testing.assert_allclose(moved[1], deviation, rtol=1e-5)
    assert moved[0] > 0.1 * deviation
    assert (direction.kind, direction.unit, direction.default_range) == ("w", "std", (-4, 4))
    with pytest.raises(InputError, match="features have 2 numbers, .* measured with 3"):
        found.direction(text[:2], name="text")
    constant = FeatureCovariances(found.w_features, 0 * found.features)
    with pytest.raises(InputError, match="CLIP's features do not vary over the samples"):
        constant.direction(text, name="text")


def test_covariances_are_those_of_the_samples(covariances, weights, clip):
    model, found = ij.load(weights), load_text_source(covariances)
    w = [
        np.asarray(model.map(jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (4, 16))))
        for i in range(3)
    ]
    w = np.concatenate(w)[:SAMPLES]
    features = np.asarray(clip.image_features(model.synthesize(jnp.repeat(w[:, None], 8, axis=1))))
    both = np.cov(np.concatenate([w, features], axis=1).T.astype(np.float64), bias=True)
    # Stored as bfloat16, and drawn in other batches.
    for values, expected in (
        (found.w_features, both[:16, 16:]),
        (found.features, both[16:, 16:]),
    ):
        np.testing.assert_allclose(values, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
    assert found.generator == model.generator_fingerprint
    assert found.clip == digest(clip.directory)
    metadata = load_weights(covariances).metadata
    assert (metadata["licence"], metadata["storage_dtype"]) == ("own", "bfloat16")
    with pytest.raises(InputError, match="already exists"):
        measure_covariances(weights, clip, covariances)
    with pytest.raises(InputError, match="num_samples: 1, expected 2 at least"):
        measure_covariances(weights, clip, covariances.with_name("other"), num_samples=1)


def test_a_text_moves_w(covariances, weights, clip, tmp_path):
    w_plus = np.random.default_rng(0).normal(size=(1, 1, 8, 16)).astype(np.float32)
    np.savez(tmp_path / "latents.npz", names=["me"], w_plus=w_plus)
    common = ["edit", f"--weights={weights}", f"--latents={tmp_path / 'latents.npz'}"]
    common += [f"--clip={clip.directory}", f"--text={TEXT}"]
    out = tmp_path / "out"
    assert main([*common, f"--channels={covariances}", f"--out={out}"]) == 0
    array = (
        load_text_source(covariances)
        .direction(text_direction(clip, TEXT, "a face"), name="text")
        .array
    )
    with np.load(out / "latents.npz") as file:
        moved = file["w_plus"][0]
    for found, strength in zip(moved, (-4, 0, 4), strict=True):
        np.testing.assert_allclose(found, w_plus[0, 0] + strength * array, rtol=1e-4, atol=1e-4)
    (edit,) = json.loads((out / "report.json").read_text())["edits"]
    assert (edit["kind"], edit["default_range"]) == ("w", [-4, 4])


def test_what_does_not_belong_together_is_refused(covariances, weights, clip, tmp_path, capsys):
    source = load_text_source(covariances)
    with pytest.raises(InputError, match=r"w of 16 numbers, this generator's has 512"):
        check_text_source(source, ij.load("avatar_generator"))
    np.savez(tmp_path / "latents.npz", names=["me"], w_plus=np.zeros((1, 1, 8, 16), np.float32))
    common = ["edit", f"--weights={weights}", f"--latents={tmp_path / 'latents.npz'}"]
    common += [f"--text={TEXT}", f"--channels={covariances}", f"--out={tmp_path / 'out'}"]
    other = drawn(NETWORK, "clip", tmp_path / "other_clip", seed=1)
    for options, message in [
        ([f"--clip={clip.directory}", "--beta=0.1"], "beta: goes with channels of"),
        ([f"--clip={clip.directory}", "--num-channels=3"], "num_channels: goes with channels of"),
        ([f"--clip={other}"], "texts: was measured with CLIP"),
    ]:
        assert main([*common, *options]) == 2
        assert message in capsys.readouterr().err


def test_what_ships_goes_together():
    """Of the shipped generator and CLIP, with a direction for every word that the CLIP knows."""
    source, model, clip = (
        load_text_source("avatar_texts"),
        ij.load("avatar_generator"),
        "avatar_clip",
    )
    check_text_source(source, model)
    assert source.generator == model.generator_fingerprint and source.clip == digest(clip)
    text = text_direction(load_clip(clip), "a face with black hair", "a face")
    direction = source.direction(text, name="black hair")
    assert 1 < direction.norm < 30
