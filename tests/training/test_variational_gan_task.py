"""The generator that also decodes images: its loss, its step, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import generator_config
from interestyle_jax.errors import InputError
from interestyle_jax.training.trainer import make_task
from interestyle_jax.training.variational_gan_task import VariationalGanTask, kl_divergence


def tiny_config():
    config = generator_config()
    config.batch_size = 4
    config.generator = {
        "resolution": 16,
        "z_dim": 8,
        "w_dim": 8,
        "mapping_depth": 1,
        "channel_base": 64,
        "channel_max": 8,
    }
    config.discriminator = {"channel_base": 64, "channel_max": 8}
    config.gan.path_length_weight = 0.0
    config.optimizer.learning_rate = 0.005
    config.reconstruction = {"l1": 2.0, "lpips": 1.0, "kl": 1e-4, "adversarial": 0.1}
    return config


@pytest.fixture(scope="module")
def task():
    return make_task(tiny_config())


@pytest.fixture(scope="module")
def batch():
    """Images of one plain colour each."""
    colours = np.array([[250, 20, 30], [20, 240, 40], [10, 30, 230], [240, 230, 20]], np.uint8)
    return {"clean": np.broadcast_to(colours[:, None, None], (4, 16, 16, 3)).copy()}


def test_kl_of_gaussians():
    zero = jnp.zeros((2, 3))
    np.testing.assert_allclose(kl_divergence(zero, zero), 0.0)
    # N(m, s^2) against N(0, 1): (m^2 + s^2 - 1 - ln s^2) / 2 a dimension.
    mean, log_variance = jnp.full((1, 3), 2.0), jnp.full((1, 3), np.log(0.25))
    want = 3 * 0.5 * (4.0 + 0.25 - 1 - np.log(0.25))
    np.testing.assert_allclose(kl_divergence(mean, log_variance), want, rtol=1e-6)


def test_the_config_chooses_the_task(task):
    assert type(task) is VariationalGanTask
    assert set(task.weight_digests) == {"lpips"}
    config = tiny_config()
    config.reconstruction.l1 = config.reconstruction.lpips = 0.0
    assert type(make_task(config)) is not VariationalGanTask


def test_steps_learn_to_decode_the_images(task, batch):
    state = jax.jit(task.init)(jax.random.key(0), {})
    step = jax.jit(task.train_step, static_argnames="phase")
    history = []
    for i in range(60):
        key = jax.random.fold_in(jax.random.key(1), i)
        before, (state, metrics) = state, step(key, state, task.frozen, batch, phase=task.phase(i))
        history.append({name: float(value) for name, value in metrics.items()})
        assert all(np.isfinite(list(history[-1].values())))
        if i == 0:
            for name in ("generator", "discriminator", "posterior"):
                moved = jax.tree.map(
                    lambda a, b: bool(jnp.any(a != b)), getattr(before, name), getattr(state, name)
                )
                assert any(jax.tree.leaves(moved))
    assert history[-1]["l1"] < 0.6 * history[0]["l1"]
    grid = task.images(jax.random.key(2), state, task.frozen, batch)
    assert grid.shape == (4, 7, 16, 16, 3)
    # Of the posterior's means, each decoding is nearest to its own image.
    real, decoded = (np.asarray(grid[:, i]).mean(axis=(1, 2)) for i in (0, 1))
    distances = np.square(decoded[:, None] - real[None]).sum(axis=-1)
    np.testing.assert_array_equal(distances.argmin(axis=1), np.arange(4))
    exported = task.exported(state)
    assert exported.posterior is None and exported.discriminator is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reconstruction.kl": -1.0}, r"config.reconstruction.kl: expected from 0"),
        ({"gan.path_length_weight": 1.0}, r"config.gan.path_length_weight: expected 0"),
        ({"batch_size": 3}, r"config.batch_size: expected an even number, got 3"),
        ({"weights.lpips": "nowhere"}, "nowhere"),
    ],
)
def test_bad_fields_are_refused(change, message):
    config = tiny_config()
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=message):
        make_task(config)
