"""BatchNorm against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models.batch_norm import BatchNorm


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
