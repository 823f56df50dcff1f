"""Ranger against the official optimiser's numbers (golden/public/ranger.npz)."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interestyle_jax.training.ranger import ranger, rectified_scale, simple_average_length

NAMES = ("p0", "p1", "p2", "p4")
RUNS = {"lr1e-2": (1e-2, 0.0), "lr1e-4": (1e-4, 0.0), "lr1e-2_wd": (1e-2, 0.1)}


def to_flax(array):
    """[O, I, H, W] -> [H, W, I, O]; [O, I] -> [I, O]; others as they are."""
    return {4: lambda a: a.transpose(2, 3, 1, 0), 2: lambda a: a.T}.get(array.ndim, lambda a: a)(
        array
    )


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "public" / "ranger.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def problem(golden_dir):
    """The trees init, target and curvature of sum(0.5 * |c| * (p - t)^2), in Flax layout."""
    sys.path.insert(0, str(golden_dir))
    try:
        from goldenfill import normal
    finally:
        sys.path.remove(str(golden_dir))
    shapes = {"p0": (1,), "p1": (7,), "p2": (5, 6), "p4": (4, 3, 3, 3)}
    return {
        kind: {n: to_flax(normal(f"input:ranger:{n}:{kind}", s)) for n, s in shapes.items()}
        for kind in ("init", "target", "curv")
    }


def relative(value, reference):
    reference = np.asarray(reference, np.float64)
    return np.linalg.norm(np.asarray(value, np.float64) - reference) / np.linalg.norm(reference)


def run(problem, learning_rate, weight_decay, steps=18):
    """Parameters after each step (index 0 the initial ones), and the last state."""
    optimizer = ranger(learning_rate, weight_decay=weight_decay)
    curvature = jax.tree.map(np.abs, problem["curv"])

    @jax.jit
    def step(params, state):
        gradient = jax.tree.map(lambda c, p, t: c * (p - t), curvature, params, problem["target"])
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, problem["init"])
    state = optimizer.init(params)
    history = [params]
    for _ in range(steps):
        params, state = step(params, state)
        history.append(params)
    return history, state


@pytest.mark.parametrize("name", RUNS)
def test_parameters_and_state_match_the_official_ranger(golden, problem, name):
    history, state = run(problem, *RUNS[name])
    for step in (1, 2, 5, 6, 7, 11, 12, 18):
        for p in NAMES:
            expected = to_flax(golden[f"{name}/step{step}/{p}"])
            assert relative(history[step][p], expected) < 1e-6, (step, p)
    adam = state.inner[1]
    for key, tree in (("exp_avg", adam.mu), ("exp_avg_sq", adam.nu), ("slow_buffer", state.slow)):
        for p in NAMES:
            expected = to_flax(golden[f"{name}/state18/{p}/{key}"])
            assert relative(tree[p], expected) < 1e-6, (key, p)
    assert int(state.count) == 18


def test_n_sma_of_each_step(golden):
    steps = jnp.arange(1, 19)
    np.testing.assert_allclose(simple_average_length(steps, b2=0.999), golden["n_sma"], rtol=2e-6)
    rectified, _ = rectified_scale(steps, b1=0.95, b2=0.999, threshold=5.0)
    assert list(rectified) == [False] * 5 + [True] * 13


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999])
def test_n_sma_equals_its_definition_in_float64_at_every_scale(b2):
    steps = np.array([1, 2, 6, 9, 10, 99, 100, 101, 999, 1000, 1001, 5000, 30000])
    power = b2 ** steps.astype(np.float64)
    expected = 2 / (1 - b2) - 1 - 2 * steps * power / (1 - power)
    np.testing.assert_allclose(
        simple_average_length(jnp.asarray(steps), b2=b2), expected, rtol=3e-6
    )


def test_slow_weights_start_as_a_copy_of_the_parameters_and_meet_them_every_k_steps():
    optimizer = ranger(0.1, k=3)
    params = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}
    state = optimizer.init(params)
    assert jax.tree.structure(state.slow) == jax.tree.structure(params)
    assert state.slow["kernel"] is not params["kernel"]
    for step in range(1, 7):
        before = state.slow
        gradient = jax.tree.map(lambda p: p + 1.0, params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        same = np.array_equal(state.slow["bias"], before["bias"])
        assert same == (step % 3 != 0)
        if step % 3 == 0:
            np.testing.assert_allclose(params["bias"], state.slow["bias"], rtol=1e-6)


def test_centralisation_keeps_the_last_axis_only():
    optimizer = ranger(1.0, k=100)
    params = {"conv": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}
    gradient = {
        "conv": jnp.broadcast_to(jnp.arange(4.0), (3, 3, 2, 4)),
        "bias": jnp.arange(4.0),
    }
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv"], 0.0, atol=1e-7)
    np.testing.assert_allclose(updates["bias"], -jnp.arange(4.0), rtol=1e-6)


def test_a_schedule_gives_the_learning_rate_of_its_step():
    optimizer = ranger(lambda count: jnp.where(count == 0, 1.0, 0.0), k=100)
    params = {"bias": jnp.zeros(2)}
    state = optimizer.init(params)
    first, state = optimizer.update({"bias": jnp.ones(2)}, state, params)
    second, _ = optimizer.update({"bias": jnp.ones(2)}, state, params)
    np.testing.assert_allclose(first["bias"], -1.0, rtol=1e-6)
    np.testing.assert_allclose(second["bias"], 0.0)


def test_state_shards_like_the_parameters():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp"))
    params = {"kernel": jax.device_put(jnp.ones((4, 16)), sharding)}
    optimizer = ranger(1e-2)
    state = optimizer.init(params)
    gradient = {"kernel": jax.device_put(jnp.arange(64.0).reshape(4, 16), sharding)}
    updates, state = jax.jit(optimizer.update)(gradient, state, params)
    for leaf in (updates, state.slow, state.inner[1].mu, state.inner[1].nu):
        assert leaf["kernel"].sharding.is_equivalent_to(sharding, 2)


def test_update_without_params_says_so():
    optimizer = ranger(1e-2)
    params = {"bias": jnp.ones(2)}
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(params, optimizer.init(params))
