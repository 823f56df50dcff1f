"""Latents of drawn avatars: found again in an exported generator, and what errors of them count."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.files import load_config
from interestyle_jax.config.presets import distillation_config
from interestyle_jax.data.avatars import clean_sample
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.errors import InputError
from interestyle_jax.training.distillation_task import DistillationTask
from interestyle_jax.training.known_latents import (
    embedding_of,
    known_w,
    sample_factors,
    with_other_kinds,
    without_hidden,
)
from interestyle_jax.training.latent_metric import image_metric, latent_error, with_changes
from interestyle_jax.training.supervised_encoder_task import CHANGED, SupervisedEncoderTask
from interestyle_jax.weights import load_weights, resolve_weights

ROOT = Path(__file__).resolve().parents[2]
FACTORS = factors_of_style("toon-head")


def test_the_embedding_is_found_in_the_mapping_network():
    config = distillation_config()
    config.generator.resolution, config.generator.channel_max = 8, 16
    config.loss.lpips = 0.0
    task = DistillationTask(config)
    params = jax.tree.map(jnp.asarray, task.init(jax.random.key(0), {}).params)
    embedding = embedding_of(task.g, task._mapping(params), task.factors)
    factors = sample_factors(FACTORS, 16)
    np.testing.assert_allclose(
        known_w(embedding, factors), task._embed(params, factors), rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def shipped():
    return load_weights(resolve_weights("avatar_generator")).part("generator")


def test_the_shipped_generator_draws_avatars_from_their_factors(shipped):
    generator, variables = shipped
    embedding = embedding_of(generator, variables["params"]["mapping"], FACTORS)
    drawn = [clean_sample(i, split="test") for i in range(4)]
    w = np.asarray(known_w(embedding, np.stack([x["factors"] for x in drawn])))
    w_plus = np.repeat(w[:, None], generator.num_styles, axis=1)
    found = generator.apply(variables, w_plus, "const", method="synthesize")
    real = np.stack([x["clean"] for x in drawn]) / 127.5 - 1
    apart = np.abs(found[:, None] - real).mean((2, 3, 4))
    assert np.diag(apart).max() < 0.03
    assert (apart + np.eye(4)).min() > 0.1


def test_a_generator_of_something_else_is_refused(shipped):
    generator, variables = shipped
    mapping = dict(variables["params"]["mapping"])
    with pytest.raises(InputError, match="config.weights.generator: expected one that learnt"):
        embedding_of(generator, mapping, factors_of_style("personas"))
    mapping["dense_1"] = jax.tree.map(lambda x: 1.1 * x, mapping["dense_1"])
    with pytest.raises(InputError, match="config.weights.generator: expected one that learnt"):
        embedding_of(generator, mapping, FACTORS)


def test_backgrounds_are_hidden():
    shown = without_hidden(FACTORS)
    hidden = [name for name, seen in zip(FACTORS.names, shown, strict=True) if not seen]
    assert hidden == [f"background.{x}" for x in ("hue.x", "hue.y", "saturation", "value", "slope")]


def test_vectors_of_lpips_are_as_far_apart_as_lpips_says():
    lpips, variables = load_weights(resolve_weights("lpips_alex")).part("lpips")
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3), minval=-1)
    vectors = lpips.apply(variables, images, method="vectors")
    found = sum(jnp.square(x[:2] - x[2:]).sum((1, 2, 3)) for x in vectors)
    want = lpips.apply(variables, images[:2], images[2:])
    assert float(want.min()) > 0.01
    np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.fixture(scope="module")
def linear():
    """Images that are a linear function of w_plus [B, 2, 3], and the metric of that."""
    matrix = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(64 * 64, 3)).astype(np.float32)
    w_avg = np.zeros((2, 3), np.float32)

    def synthesize(w_plus):
        return w_plus.reshape(len(w_plus), -1) @ matrix

    return matrix, w, image_metric(jax.random.key(2), synthesize, lambda y: [y], w, w_avg)


def test_the_metric_is_what_errors_change_in_the_image(linear):
    matrix, w, metric = linear
    error = np.random.default_rng(3).normal(size=(100, 6)).astype(np.float32)
    means = np.square(np.concatenate([w, w], axis=1) @ matrix).sum(1).mean()
    want = np.square(error @ matrix).sum(1) / means
    found = np.square(error @ metric).sum(1)
    # Of 4096 random projections.
    np.testing.assert_allclose(found, want, rtol=0.15)
    assert np.corrcoef(found, want)[0, 1] > 0.995


def test_the_mean_latent_has_an_error_of_one_and_the_known_one_of_none(linear):
    _, w, metric = linear
    variance = np.square(w).mean()
    known = np.repeat(w[:, None], 2, axis=1)
    np.testing.assert_array_equal(latent_error(known, w, metric, variance), 0)
    of_mean = latent_error(np.zeros_like(known), w, metric, variance)
    assert float(of_mean.mean()) == pytest.approx(1, rel=1e-3)


def test_a_change_counts_at_least_what_it_shows(linear):
    """Along one axis images jump, in the first row of w_plus; the metric hardly knows."""
    matrix, w, metric = linear
    w, w_avg = w[:128], np.zeros((2, 3), np.float32)
    blind = metric.reshape(2, 3, -1).copy()
    blind[:, 0] *= [[0.1], [0.01]]

    def shown(a, b):
        return jnp.square((jnp.concatenate([a, a], 1) - jnp.concatenate([b, b], 1)) @ matrix).sum(1)

    turned = w * np.array([-1, 1, 1], np.float32)
    kept = w.copy()
    found = with_changes(blind.reshape(6, -1), shown, w, [(turned, 1), (kept, 1)], w_avg)
    change = np.concatenate([turned - w] * 2, axis=1)
    want = float(shown(turned, w).mean() / shown(w, np.zeros_like(w)).mean())
    assert np.square(change @ blind.reshape(6, -1)).sum(1).mean() < 0.1 * want
    assert np.square(change @ found).sum(1).mean() == pytest.approx(want, rel=0.2)
    in_rows = [np.abs(found.reshape(2, 3, -1)[i, 0]).max() for i in range(2)]
    assert in_rows[0] > 5 * in_rows[1]
    # What the metric knew already stays.
    others = np.square(
        w[:, 1:].repeat(2, 0).reshape(128, 4) @ found.reshape(2, 3, -1)[:, 1:].reshape(4, -1)
    )
    before = np.square(w[:, 1:].repeat(2, 0).reshape(128, 4) @ blind[:, 1:].reshape(4, -1))
    np.testing.assert_allclose(others.sum(1), before.sum(1), rtol=1e-3)


def test_other_kinds_are_of_one_part():
    values = sample_factors(FACTORS, 64)
    changed = with_other_kinds(FACTORS, values, "beard")
    names = np.array(FACTORS.names)[np.any(changed != values, axis=0)]
    assert all(name.startswith("beard=") for name in names) and len(names) > 2
    first = [i for i, name in enumerate(FACTORS.names) if name.startswith("beard=")]
    np.testing.assert_array_equal(changed[1:, first], values[:-1, first])


@pytest.mark.slow
def test_every_part_of_an_avatar_counts_as_it_shows():
    """In the shipped encoder's training, of avatars that the metric was not made with."""
    task = SupervisedEncoderTask(load_config(f"{ROOT / 'configs/avatar_interestyle.py'}:smoke"))
    frozen, lpips, hidden = task.frozen, task.networks.lpips, without_hidden(FACTORS)
    known, (w_0, *_) = frozen["known"], frozen["w_0"]
    values = sample_factors(FACTORS, 2 * CHANGED)[-128:] * hidden

    @jax.jit
    def seen(values):
        w = known_w(known["embedding"], values)
        w_plus = jnp.broadcast_to(w[:, None], (len(w), *w_0.shape))
        return w, task._synthesize(frozen, None)(w_plus, 0)

    def loss(a, b):
        return jnp.square(a - b).mean((1, 2, 3)) + 0.8 * lpips.apply(frozen["lpips"], a, b)

    w, images = seen(values)
    mean = task._synthesize(frozen, None)(jnp.broadcast_to(w_0, (len(w), *w_0.shape)), 0)
    total, found = loss(images, mean).mean(), {}
    for part in FACTORS.parts:
        other, changed = seen(with_other_kinds(FACTORS, values, part))
        shown = loss(images, changed).mean() / total
        w_plus = jnp.broadcast_to(other[:, None], (len(w), *w_0.shape))
        counted = latent_error(w_plus, w, known["metric"], known["variance"]).mean()
        found[part] = float(counted / shown)
    # Eyebrows are much of w, and hardly seen.
    assert found.pop("eyebrows") < 3
    assert len(found) > 4 and all(0.7 < ratio < 1.5 for ratio in found.values()), found
