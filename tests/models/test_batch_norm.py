"""BatchNorm against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from interestyle_jax.models.batch_norm import (
    BatchNorm,
    after_passes,
    mean_of_devices,
    of_devices,
    of_passes,
)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    x = (3.0 + 2.0 * rng.standard_normal((2, 3, 2, 4))).astype(np.float32)
    variables = {
        "params": {
            "scale": rng.standard_normal(4).astype(np.float32),
            "bias": rng.standard_normal(4).astype(np.float32),
        },
        "batch_stats": {
            "mean": rng.standard_normal(4).astype(np.float32),
            "var": (1 + rng.random(4)).astype(np.float32),
        },
    }
    return x, variables


def test_training_normalises_by_the_biased_variance_and_stores_the_unbiased_one(case):
    x, variables = case
    y, new = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    flat = x.astype(np.float64).reshape(-1, 4)
    p, s = variables["params"], variables["batch_stats"]
    want = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * p["scale"] + p["bias"]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.9 * s["mean"] + 0.1 * flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * s["var"] + 0.1 * flat.var(0, ddof=1), rtol=1e-6)


def test_evaluation_uses_and_keeps_the_running_statistics(case):
    x, variables = case
    y = BatchNorm().apply(variables, x)
    p, s = variables["params"], variables["batch_stats"]
    want = (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_without_affine_there_are_no_parameters(case):
    x, _ = case
    variables = BatchNorm(affine=False).init(jax.random.key(0), x)
    assert "params" not in variables
    y = BatchNorm(affine=False).apply(variables, x)
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_initialising_in_training_mode_leaves_the_statistics_at_their_start(case):
    x, _ = case
    stats = BatchNorm().init(jax.random.key(0), x, train=True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(4))
    np.testing.assert_array_equal(stats["var"], np.ones(4))


def test_half_precision_input_keeps_its_type_and_float32_statistics(case):
    x, variables = case
    y, new = BatchNorm().apply(
        variables, jnp.asarray(x, jnp.bfloat16), train=True, mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(new)} == {jnp.dtype("float32")}


def test_local_statistics_are_those_of_each_devices_rows(case):
    """Values, running statistics and gradients, as the plain form has them for its rows alone.

    Devices send each other nothing but gradients of parameters, and statistics when they are asked.
    """
    _, variables = case
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 16, 3, 2, 4)).astype(np.float32)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    whole = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))

    def forward(params, stats, x, weight, local):
        y, new = BatchNorm(local=local).apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(y * weight), (y, new["batch_stats"])

    def step(params, stats, x, weight, local=True):
        stats = of_devices(stats) if local else stats
        grad = jax.value_and_grad(forward, argnums=(0, 2), has_aux=True)
        (_, (y, stats)), (of_params, of_x) = grad(params, stats, x, weight, local)
        return y, of_x, of_params, stats

    arguments = (variables["params"], variables["batch_stats"], x, weight)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, in_shardings=(whole, whole, rows, rows))
        compiled = jitted.lower(*arguments).compile()
        y, of_x, of_params, stats = compiled(*arguments)
        # Those of the gradients of scale and bias.
        assert compiled.as_text().count(" all-") <= 2
        mean = jax.jit(mean_of_devices).lower(stats).compile()
        assert mean.as_text().count(" all-reduce(") == 1
        means = mean(stats)
    plain = jax.jit(step, static_argnums=4)
    parts = [plain(*arguments[:2], x[i : i + 2], weight[i : i + 2], False) for i in range(0, 16, 2)]
    want_y, want_x, want_params, want_stats = zip(*parts, strict=True)
    np.testing.assert_allclose(y, np.concatenate(want_y), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(of_x, np.concatenate(want_x), rtol=1e-5, atol=1e-5)
    for name in ("scale", "bias"):
        total = sum(part[name] for part in want_params)
        np.testing.assert_allclose(of_params[name], total, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        own = np.stack([part[name] for part in want_stats])
        np.testing.assert_allclose(stats[name], own, rtol=1e-6)
        np.testing.assert_allclose(means[name], own.mean(axis=0), rtol=1e-6)


def test_local_statistics_of_one_device_are_the_plain_ones(case):
    x, variables = case
    y, new = BatchNorm(local=True).apply(variables, x, train=True, mutable=["batch_stats"])
    want, plain = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, want, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        mean_of_devices(new["batch_stats"]),
        plain["batch_stats"],
    )


@pytest.mark.parametrize("local", [False, True])
def test_passes_in_turn_are_normalised_apart(case, local):
    """Values, gradients and running statistics, as of one pass after the other."""
    _, variables = case
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((2, 8, 2, 3, 2, 4)).astype(np.float32)
    params = variables["params"]

    def norm(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        y, new = BatchNorm(local=local).apply(variables, x, train=True, mutable=["batch_stats"])
        return y, new["batch_stats"]

    def one_by_one(params, x, stats):
        rows = []
        for k in range(2):
            y, stats = norm(params, stats, x[:, k])
            rows.append(y)
        return jnp.stack(rows, axis=1), stats

    def in_turn(params, x, stats):
        y, moved = norm(params, of_passes(stats, 2), x.reshape(-1, *x.shape[2:]))
        return y.reshape(x.shape), after_passes(stats, moved)

    def step(form, params, x):
        stats = variables["batch_stats"]
        stats = of_devices(stats) if local else stats

        def total(params, x):
            y, moved = form(params, x, stats)
            return jnp.sum(y * weight), (y, moved)

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(params, x)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        want, got = (
            jax.jit(lambda p, x, form=form: step(form, p, x))(params, placed)
            for form in (one_by_one, in_turn)
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


def test_statistics_of_layers_move_apart():
    rng = np.random.default_rng(4)
    before, moved = (
        {"a": {"mean": rng.random((*own, 3))}, "b": {"var": rng.random((*own, 5))}}
        for own in ((2,), (2, 3))
    )

    def follow(start, own):
        value = own[:, 0]
        for k in (1, 2):
            value = own[:, k] + 0.9 * (value - start)
        return value

    got, want = after_passes(before, moved), jax.tree.map(follow, before, moved)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
