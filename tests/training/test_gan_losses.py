"""Adversarial losses against closed forms, and the generator's step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interestyle_jax.config.presets import generator_config
from interestyle_jax.errors import InputError
from interestyle_jax.models.backend import built_for
from interestyle_jax.parallel import sharding
from interestyle_jax.training import gan_losses
from interestyle_jax.training.gan_task import GanTask, build_generator


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
    step = jax.jit(task.train_step, static_argnames="phase")
    clean = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    batch = {"clean": clean}
    for i in range(2):
        key = jax.random.fold_in(jax.random.key(1), i)
        before, (state, metrics) = state, step(key, state, {}, batch, phase=task.phase(i))
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


def test_the_generators_form_is_the_backends_unless_it_is_named(task):
    config = task.config.copy_and_resolve_references()
    assert build_generator(generator_config()).form == "separable"
    with built_for("tpu"):
        assert build_generator(config).form == "blocks"
        config.generator.form = "fused"
        assert build_generator(config).form == "fused"
    config.generator.form = "other"
    with pytest.raises(InputError, match="config.generator.form: 'other', expected one of sep"):
        build_generator(config)
    config.generator = {"side": 3}
    with pytest.raises(InputError, match="config.generator: Generator has no field side"):
        build_generator(config)


def test_photographs_are_trained_on_by_choice(task):
    config = task.config.copy_and_resolve_references()
    config.gan.field = "image"
    photographs = GanTask(config)
    assert (task.batch_fields, photographs.batch_fields) == (("clean",), ("image",))
    state = jax.eval_shape(photographs.init, jax.random.key(0), {})
    batch = {"image": jax.ShapeDtypeStruct((8, 8, 8, 3), np.uint8)}
    after, _ = jax.eval_shape(photographs.train_step, jax.random.key(0), state, {}, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    config.gan.field = "interest_mask"
    with pytest.raises(InputError, match="config.gan.field: expected one of clean, image, got"):
        GanTask(config)


def test_images_of_another_size_are_refused(task):
    state = jax.eval_shape(task.init, jax.random.key(0), {})
    batch = {"clean": jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8)}
    with pytest.raises(InputError, match=r"config.data.dir: its images are 16 x 16.* is 8"):
        jax.eval_shape(task.train_step, jax.random.key(0), state, {}, batch)


def test_lazy_regularisers_are_updates_of_their_own(task):
    """As in the official code: so many updates of Adam as its correction counts."""
    gan = task.config.gan
    state = jax.jit(task.init)(jax.random.key(0), {})
    rng = np.random.default_rng(0)
    batch = {"clean": rng.integers(0, 256, (8, 8, 8, 3), np.uint8)}
    key = jax.random.key(1)
    step = jax.jit(task.train_step, static_argnames="phase")
    plain, _ = step(key, state, {}, batch, phase=())
    both, metrics = step(key, state, {}, batch, phase=("r1", "path_length"))
    counts = [int(s[0].count) for s in (plain.generator_opt, plain.discriminator_opt)]
    assert counts == [1, 1]
    counts = [int(s[0].count) for s in (both.generator_opt, both.discriminator_opt)]
    assert counts == [2, 2]
    # The second update of D is by R1 alone, at the parameters that the first one gave.
    real = batch["clean"].astype(np.float32) / 127.5 - 1

    def penalty(params):
        return gan_losses.r1_penalty(lambda x: task.d.apply({"params": params}, x), real)

    r1, grads = jax.jit(jax.value_and_grad(penalty))(plain.discriminator)
    np.testing.assert_allclose(metrics["r1"], r1, rtol=1e-4)
    grads = jax.tree.map(lambda g: 0.5 * gan.r1_gamma * gan.r1_every * g, grads)
    ratio = gan.r1_every / (gan.r1_every + 1)
    optimizer = optax.adam(
        task.config.optimizer.learning_rate * ratio, b1=0.0, b2=0.99**ratio, eps=1e-8
    )
    _, want = optimizer.update(grads, plain.discriminator_opt)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6 * float(r1)),
        both.discriminator_opt[0].nu,
        want[0].nu,
    )


def test_adam_is_corrected_for_terms_that_are_there(task):
    """Steps of a first update: the learning rate, and less where a regulariser shares the time."""
    config = task.config.copy_and_resolve_references()
    grads = {"a": jnp.ones(())}

    def rates(config):
        task = GanTask(config)
        updates = (o.update(grads, o.init(grads))[0] for o in (task.g_optimizer, task.d_optimizer))
        return [-float(u["a"]) / config.optimizer.learning_rate for u in updates]

    np.testing.assert_allclose(rates(config), [2 / 3, 4 / 5], rtol=1e-5)
    config.gan.r1_gamma = config.gan.path_length_weight = 0.0
    config.gan.r1_every = 0
    np.testing.assert_allclose(rates(config), [1, 1], rtol=1e-5)
    config.gan.r1_gamma = 1.0
    with pytest.raises(InputError, match="config.gan.r1_every: expected from 1, got 0"):
        GanTask(config)
    config.gan.r1_gamma = -1.0
    with pytest.raises(InputError, match="config.gan.r1_gamma: expected from 0, got -1.0"):
        GanTask(config)


def path_length(task, state, batch, key):
    """The mean path length after a step's penalty, and its gradient."""
    del batch
    grads, mean = task._path_length_gradient(key, state, state.generator, 16)
    return grads, {"path_length": mean}


def whole_step(task, state, batch, key):
    """Parameters after a step with both regularisers, and its metrics."""
    state, metrics = task.train_step(key, state, {}, batch, phase=("r1", "path_length"))
    return (state.generator, state.discriminator), metrics


@pytest.mark.parametrize("work", [path_length, pytest.param(whole_step, marks=pytest.mark.slow)])
def test_one_device_and_eight_over_fsdp_agree(task, work):
    """Path lengths too; and the devices share out the images that a step draws."""
    config = task.config.copy_and_resolve_references()
    config.batch_size = 16
    config.generator.update({"channel_base": 64, "channel_max": 8})
    task = GanTask(config)
    key = jax.random.key(0)
    state = jax.device_get(jax.jit(task.init)(key, {}))
    batch = {"clean": np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)}
    results, flops = [], []
    for devices, fsdp in [(1, 1), (8, 4)]:
        mesh = sharding.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
        places = sharding.tree_sharding(mesh, state, min_size=64)
        whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
        jitted = jax.jit(functools.partial(work, task), in_shardings=(places, rows, whole))
        with jax.set_mesh(mesh):
            compiled = jitted.lower(state, batch, key).compile()
        flops.append(compiled.cost_analysis()["flops"])
        placed = jax.device_put(state, places)
        results.append(jax.device_get(compiled(placed, sharding.put_batch(batch, rows), key)))
    (one, metrics), (other, others) = results
    assert metrics["path_length"] > 0
    for field in metrics:
        np.testing.assert_allclose(others[field], metrics[field], rtol=1e-4, err_msg=field)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other, one)
    assert flops[1] < flops[0] / 4
