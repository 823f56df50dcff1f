"""Adversarial losses against closed forms, and the generator's step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.training import gan_losses
from interestyle_jax.training.gan_task import GanTask
from interestyle_jax.training.presets import generator_config


def test_logistic_losses():
    logits = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        gan_losses.generator_loss(logits), np.mean(np.log1p(np.exp(-logits))), rtol=1e-6
    )
    both = np.mean(np.log1p(np.exp(-logits))) + np.mean(np.log1p(np.exp(logits)))
    np.testing.assert_allclose(gan_losses.discriminator_loss(logits, logits), both, rtol=1e-6)


def test_r1_of_a_linear_judge_is_its_squared_weight():
    weight = jax.random.normal(jax.random.key(0), (4, 4, 3))
    images = jax.random.normal(jax.random.key(1), (5, 4, 4, 3))
    penalty = gan_losses.r1_penalty(lambda x: jnp.sum(x * weight, axis=(1, 2, 3)), images)
    np.testing.assert_allclose(penalty, jnp.sum(weight**2), rtol=1e-5)


def test_path_lengths_of_a_linear_synthesis():
    """|J^T y| with J known, for the y that the key draws."""
    rows, width, size = 3, 5, 4
    matrix = jax.random.normal(jax.random.key(0), (rows * width, size * size * 3))
    key = jax.random.key(1)
    w_plus = jax.random.normal(jax.random.key(2), (2, rows, width))

    def synthesize(w):
        return (w.reshape(2, -1) @ matrix).reshape(2, size, size, 3)

    y = np.asarray(jax.random.normal(key, (2, size, size, 3))).reshape(2, -1) / size
    back = (y @ np.asarray(matrix).T).reshape(2, rows, width)
    want = np.sqrt((back**2).sum(axis=2).mean(axis=1))
    np.testing.assert_allclose(gan_losses.path_lengths(key, synthesize, w_plus), want, rtol=1e-5)


@pytest.fixture(scope="module")
def task():
    config = generator_config()
    config.batch_size = 8
    config.generator = {
        "resolution": 8,
        "z_dim": 4,
        "w_dim": 4,
        "mapping_depth": 1,
        "channel_base": 32,
        "channel_max": 4,
    }
    config.discriminator = {"channel_base": 32, "channel_max": 4}
    config.gan.r1_every = 4
    config.gan.path_length_every = 2
    return GanTask(config)


def test_lazy_regularisers_run_when_due(task):
    assert [task.phase(i) for i in range(5)] == [
        ("r1", "path_length"),
        (),
        ("path_length",),
        (),
        ("r1", "path_length"),
    ]


def test_steps_move_both_networks_and_the_average(task):
    state = jax.jit(task.init)(jax.random.key(0), {})
    step = jax.jit(task.train_step, static_argnums=4)
    clean = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    batch = {"clean": clean}
    for i in range(2):
        key = jax.random.fold_in(jax.random.key(1), i)
        before, (state, metrics) = state, step(state, {}, batch, key, task.phase(i))
        assert all(np.isfinite(v) for v in metrics.values())
        for name in ("generator", "discriminator"):
            moved = jax.tree.map(
                lambda a, b: bool(jnp.any(a != b)), getattr(before, name), getattr(state, name)
            )
            assert any(jax.tree.leaves(moved))
    assert int(state.step) == 2
    assert metrics["r1"] > 0 and state.mean_path_length > 0
    # At the first step nothing was seen yet, so the average is the generator itself.
    different = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.ema, state.generator)
    assert any(jax.tree.leaves(different))


def test_pictures_of_another_size_are_refused(task):
    state = jax.eval_shape(task.init, jax.random.key(0), {})
    batch = {"clean": jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8)}
    with pytest.raises(InputError, match=r"config.data.dir: its pictures are 16 x 16.* is 8"):
        jax.eval_shape(task.train_step, state, {}, batch, jax.random.key(0))
