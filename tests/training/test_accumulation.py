"""A batch differentiated in parts, and blocks and iterations that are computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.training.accumulation import accumulate, split_batch
from interestyle_jax.training.encoder_task import EncoderTask


def test_parts_are_every_nth_row():
    parts = split_batch({"x": jnp.arange(12).reshape(6, 2)}, 3)["x"]
    assert parts.shape == (3, 2, 2)
    np.testing.assert_array_equal(parts[:, :, 0], [[0, 6], [2, 8], [4, 10]])


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_parts_give_the_gradient_of_the_whole_and_hand_the_carry_on(loop):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=3), jnp.float32)
    batch = {"x": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)}

    def gradients(key, seen, batch):
        loss, grads = jax.value_and_grad(lambda w: jnp.mean(jnp.tanh(batch["x"] @ w)))(w)
        return grads, seen * 10 + 1, {"loss": loss, "draw": jax.random.uniform(key)}

    key = jax.random.key(0)
    grads, seen, metrics = accumulate(key, gradients, jnp.asarray(0), batch, 1)
    parts, counted, means = jax.jit(
        lambda key, seen: accumulate(key, gradients, seen, batch, 4, loop=loop)
    )(key, jnp.asarray(0))
    assert int(seen) == 1 and int(counted) == 1111
    assert_allclose(parts, grads, rtol=1e-6)
    assert_allclose(means["loss"], metrics["loss"], rtol=1e-6)
    draws = [jax.random.uniform(jax.random.fold_in(key, k)) for k in range(4)]
    assert_allclose(means["draw"], np.mean(draws), rtol=1e-6)


@pytest.fixture
def config(tiny_config):
    return still(tiny_config())


def still(config):
    """Without filter and fresh noise, which these tests do not need."""
    config.method.filter_radii = (0.0,)
    config.method.noise = "const"
    return config


def gradients_of(config):
    """Gradient, statistics and metrics of the config's first step, with frozen statistics."""
    task = EncoderTask(config)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
        "interest_mask": np.full((4, 32, 32, 1), 255, np.uint8),
    }
    key = jax.random.key(0)
    shapes = jax.eval_shape(task.init, key, task.initial)

    def draw(path, spec):
        if path[-1].key in ("scale", "var"):
            return np.ones(spec.shape, np.float32)
        return (rng.normal(size=spec.shape) / 10).astype(np.float32)

    params, stats = jax.tree_util.tree_map_with_path(draw, (shapes.params, shapes.batch_stats))
    return task.frozen, jax.jit(
        lambda params, stats, frozen, batch: task.gradients(
            key, params, stats, frozen, batch, freeze_batch_norm=True
        )
    )(params, stats, task.frozen, batch)


@pytest.fixture(scope="module")
def plain(tiny_config):
    return gradients_of(still(tiny_config()))[1]


@pytest.mark.parametrize("remat", ["block", "iteration"])
def test_rematerialised_step_has_the_same_gradient(config, plain, remat):
    config.remat = remat
    grads, _, metrics = gradients_of(config)[1]
    assert_allclose(metrics["loss"], plain[2]["loss"], rtol=1e-6)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-7), grads, plain[0])


def test_bfloat16_step_stays_near_and_keeps_float32_where_it_counts(config, plain):
    config.compute_dtype = "bfloat16"
    frozen, (grads, _, metrics) = gradients_of(config)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32
    assert_allclose(metrics["loss"], plain[2]["loss"], rtol=2e-2)
    norm = np.sqrt(sum(float(jnp.vdot(g, g)) for g in jax.tree.leaves(plain[0])))
    gap = jax.tree.map(lambda a, b: float(jnp.sum(jnp.square(a - b))), grads, plain[0])
    assert 1e-4 < np.sqrt(sum(jax.tree.leaves(gap))) / norm < 0.1
    params = frozen["generator"]["params"]
    assert params["up_32"]["conv"]["kernel"].dtype == jnp.bfloat16
    assert params["up_32"]["conv"]["modulation"]["kernel"].dtype == np.float32
    assert frozen["image_0"].dtype == frozen["w_0"].dtype == np.float32


def test_unknown_choices_are_refused(config):
    config.remat = "layer"
    with pytest.raises(InputError, match="config.remat: expected one of none, block, iteration"):
        EncoderTask(config)
    config.remat = "none"
    config.compute_dtype = "float8"
    with pytest.raises(InputError, match="config.compute_dtype: expected one of float32, bfloat16"):
        EncoderTask(config)


def kept_bytes(function, *arguments) -> int:
    """What a backward pass keeps of the forward one, before XLA has a say; nothing is computed."""
    backward = jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *arguments)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))


def generator_case(remat):
    module = Generator(
        resolution=64, mapping_depth=1, channel_base=1024, channel_max=16, w_dim=16, remat=remat
    )
    w_plus = jax.ShapeDtypeStruct((8, module.num_styles, 16), jnp.float32)
    variables = registry.variable_shapes(registry.describe(module))
    return (
        lambda w, v: module.apply(v, w, "const", method="synthesize"),
        w_plus,
        variables,
    )


def encoder_case(cls):
    def case(remat):
        module = cls(
            num_styles=4, input_size=64, units=(2, 2, 1, 1), widths=(8,) * 5, head_width=8,
            w_dim=8, remat=remat,
        )  # fmt: skip
        variables = registry.variable_shapes(registry.describe(module))
        x = jax.ShapeDtypeStruct((8, 64, 64, 6), jnp.float32)
        return lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]), variables, x

    return case


@pytest.mark.parametrize(
    "case",
    [generator_case, encoder_case(BackboneEncoder), encoder_case(ResNetBackboneEncoder)],
    ids=["generator", "ir_se", "resnet"],
)
def test_blocks_that_are_computed_again_keep_less(case):
    assert kept_bytes(*case(True)) < 0.5 * kept_bytes(*case(False))
