"""Muon: which parameters it takes, and the size and shape of its updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interestyle_jax.config.presets import default_config
from interestyle_jax.training.muon import muon
from interestyle_jax.training.optimizer import make_optimizer

KERNELS = {"dense": (24, 8), "conv": (3, 3, 4, 8)}


def updates(optimizer):
    """First updates of parameters, and their gradients."""
    keys = iter(jax.random.split(jax.random.key(0), 10))
    params = {name: {"kernel": jnp.zeros(shape)} for name, shape in KERNELS.items()}
    params |= {"rgb": {"kernel": jnp.zeros((1, 1, 8, 3))}, "norm": {"scale": jnp.ones(8)}}
    grads = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    return optimizer.update(grads, optimizer.init(params), params)[0], grads


@pytest.mark.parametrize("name", KERNELS)
def test_updates_of_kernels_are_orthogonal(name):
    made, grads = updates(muon(0.1, adam_learning_rate=0.01))
    update = np.asarray(made[name]["kernel"]).reshape(-1, 8)
    assert np.sqrt((update**2).mean()) == pytest.approx(0.2 * 0.1, rel=0.2)
    values = np.linalg.svd(update, compute_uv=False)
    # Five steps of Newton-Schulz bring them to 0.7 ... 1.2 of each other's size.
    assert values.max() < 1.8 * values.min()
    u, _, v = np.linalg.svd(-np.asarray(grads[name]["kernel"]).reshape(-1, 8), full_matrices=False)
    cosine = (update * (u @ v)).sum() / np.linalg.norm(update) / np.linalg.norm(u @ v)
    assert cosine > 0.95


@pytest.mark.parametrize("name", ["rgb", "norm"])
def test_the_rest_is_nadams(name):
    made, grads = updates(muon(0.1, adam_learning_rate=0.01))
    adam = optax.nadam(0.01, b2=0.99)
    want, _ = adam.update(grads[name], adam.init(grads[name]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), made[name], want)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_both_rates_fall(schedule):
    config = default_config("encoder", "interestyle")
    config.num_steps = 10
    config.optimizer = {
        "name": "muon",
        "learning_rate": 0.1,
        "adam_learning_rate": 0.01,
        "schedule": schedule,
    }
    optimizer = make_optimizer(config)
    params = {"a": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)}}
    grads, state = jax.tree.map(jnp.ones_like, params), optimizer.init(params)
    sizes = []
    for _ in range(11):
        made, state = optimizer.update(grads, state, params)
        sizes.append(jax.tree.map(lambda x: float(jnp.abs(x).max()), made["a"]))
    for name in ("kernel", "bias"):
        assert sizes[0][name] > 0
        assert sizes[10][name] < 1e-6


def test_weight_decay_is_of_muons_kernels_alone():
    def changes(weight_decay):
        optimizer = muon(0.1, adam_learning_rate=0.01, weight_decay=weight_decay)
        params = {"a": {"kernel": jnp.full((4, 8), 3.0), "bias": jnp.full(8, 3.0)}}
        grads = jax.tree.map(jnp.ones_like, params)
        return optimizer.update(grads, optimizer.init(params), params)[0]["a"]

    without, decayed = changes(0.0), changes(0.5)
    np.testing.assert_allclose(decayed["kernel"] - without["kernel"], -0.1 * 0.5 * 3.0, rtol=1e-4)
    np.testing.assert_array_equal(decayed["bias"], without["bias"])
