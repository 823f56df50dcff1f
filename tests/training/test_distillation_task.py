"""Distillation of the avatars' renderer: its loss, its generator, its bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.config.presets import distillation_config
from interestyle_jax.data.avatars import clean_sample
from interestyle_jax.errors import InputError
from interestyle_jax.training.distillation_task import DistillationTask
from interestyle_jax.training.factor_prior import factors_of_z

SIZE, BATCH = 8, 16


def make_config(**changes):
    config = distillation_config()
    config.generator.resolution = SIZE
    config.generator.channel_max = 16
    config.generator.mapping_depth = 4
    config.loss.lpips = 0.0
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def batch():
    drawn = [clean_sample(index, size=16) for index in range(BATCH)]
    images = np.stack([x["clean"] for x in drawn]).reshape(BATCH, SIZE, 2, SIZE, 2, 3).mean((2, 4))
    return {
        "clean": jnp.asarray(images.round().astype(np.uint8)),
        "factors": jnp.asarray(np.stack([x["factors"] for x in drawn])),
    }


@pytest.fixture(scope="module")
def task():
    return DistillationTask(make_config())


@pytest.fixture(scope="module")
def trained(task, batch):
    """State and metrics before and after 150 steps on one batch."""
    state = task.init(jax.random.key(0), {})
    step = jax.jit(task.train_step)
    history = []
    for i in range(150):
        state, metrics = step(jax.random.fold_in(jax.random.key(1), i), state, {}, batch)
        history.append(metrics)
    return state, history[0], history[-1]


def test_images_are_learnt(trained):
    _, first, last = trained
    assert float(last["l1"]) < 0.5 * float(first["l1"])
    assert float(last["loss"]) == pytest.approx(2 * float(last["l1"]))


def test_the_mapping_network_gives_the_embedding_of_the_factors_of_z(task, trained):
    z = np.random.default_rng(0).normal(size=(500, task.g.z_dim)).astype(np.float32)
    params = trained[0].ema
    found = task.g.apply({"params": task._generator(params)}, z, method="map")
    want = task._embed(params, factors_of_z(task.factors, z.astype(np.float64)))
    error = jnp.square(found - want).mean() / jnp.var(want, axis=0).mean()
    # A few z lie on the narrow ramps between two kinds.
    assert float(error) < 0.01


def test_validation_and_grid_are_the_averages(task, batch, trained):
    state, _, last = trained
    found = task.validate_step(jax.random.key(3), state, {}, batch)
    assert {name: x.shape for name, x in found.items()} == dict.fromkeys(last, (BATCH,))
    averaged = task._image_loss(state.ema, state.noise, {}, batch)["loss"]
    np.testing.assert_allclose(found["loss"], averaged)
    grid = task.images(jax.random.key(4), state, {}, batch)
    assert grid.shape == (BATCH, 6, SIZE, SIZE, 3)
    l1 = jnp.abs(grid[:, 0] - grid[:, 1]).mean()
    np.testing.assert_allclose(l1, found["l1"].mean(), rtol=1e-5)


def test_weights_load_as_a_generator(task, trained, tmp_path):
    state = task.exported(trained[0])
    assert state.params is None
    task.export(state, tmp_path / "weights", extra={"note": 1})
    model = ij.load(tmp_path / "weights")
    z = np.random.default_rng(0).normal(size=(2, task.g.z_dim)).astype(np.float32)
    w = task.g.apply({"params": task._generator(state.ema)}, z, method="map")
    want = task._draw(state.ema, state.noise, w)
    found = model.synthesize(np.repeat(np.asarray(w)[:, None], task.g.num_styles, 1))
    np.testing.assert_allclose(found, want, atol=1e-5)
    np.testing.assert_allclose(model.map(z), w, atol=1e-4)


def test_lpips_joins_the_loss(batch):
    config = make_config()
    config.generator.resolution = 32
    config.loss.lpips = 0.5
    task = DistillationTask(config)
    state = task.init(jax.random.key(0), {})
    images = np.zeros((BATCH, 32, 32, 3), np.uint8)
    found = task._image_loss(state.params, state.noise, task.frozen, batch | {"clean": images})
    np.testing.assert_allclose(found["loss"], 2 * found["l1"] + 0.5 * found["lpips"], rtol=1e-6)
    assert float(found["lpips"].min()) > 0


def test_bad_input(task, batch):
    config = make_config()
    config.data.flip = True
    with pytest.raises(InputError, match="config.data.flip: expected False"):
        DistillationTask(config)
    config = make_config()
    config.loss.l1 = -1.0
    with pytest.raises(InputError, match="config.loss.l1: expected from 0"):
        DistillationTask(config)
    config = make_config()
    config.generator.z_dim = 16
    with pytest.raises(InputError, match="config.generator.z_dim: 16, expected from"):
        DistillationTask(config)
    config = make_config()
    config.generator.w_dim = 64
    with pytest.raises(InputError, match="config.generator.w_dim: 64, expected from"):
        DistillationTask(config)
    config = make_config()
    config.generator.mapping_depth = 3
    with pytest.raises(InputError, match="config.generator.mapping_depth: 3, expected above 3"):
        DistillationTask(config)
    state = task.init(jax.random.key(0), {})
    with pytest.raises(InputError, match="config.data.dir: its images are 16 x 16"):
        wrong = batch | {"clean": np.zeros((BATCH, 16, 16, 3), np.uint8)}
        task.train_step(jax.random.key(0), state, {}, wrong)
