"""The computed layers from z to factors, against the functions that they stand for."""

import numpy as np
import pytest

from interestyle_jax.data.avatars import STYLES
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.errors import InputError
from interestyle_jax.training.factor_mapping import factor_layers
from interestyle_jax.training.factor_prior import factors_of_z

Z_DIM, WIDTH = 64, 512


def run(layers, read, constant, z, *, dtype):
    """As `models.stylegan2.Mapping` runs layers whose stored values have a type."""
    x = (z / np.sqrt(np.square(z).mean(1, keepdims=True))).astype(np.float32)
    for kernel, bias in layers:
        stored = stored_scale(kernel)
        kernel = (kernel * stored).astype(dtype).astype(np.float32) / np.float32(stored)
        bias = (bias * 100).astype(dtype).astype(np.float32) / 100
        x = x @ kernel + bias
        x = np.sqrt(np.float32(2)) * np.where(x > 0, x, np.float32(0.2) * x)
    return x @ read + constant


def stored_scale(kernel):
    """What a stored kernel is divided by."""
    return 100 * np.sqrt(len(kernel))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("style", sorted(STYLES))
def test_layers_are_the_factors_of_z(style, dtype):
    factors = factors_of_style(style)
    z = np.random.default_rng(0).normal(size=(20_000, Z_DIM))
    layers = factor_layers(factors, z_dim=Z_DIM, width=WIDTH)
    found, want = run(*layers, z, dtype=dtype), factors_of_z(factors, z)
    error = np.square(found - want).mean(0) / want.var(0)
    assert error.mean() < 0.002
    assert error.max() < 0.01
    kinds = ["=" in name for name in factors.names]
    mixed = (np.abs(found - want)[:, kinds].max(1) > 0.02).mean()
    assert mixed < 0.06
    # Numbers of z beyond those that decide something change nothing but the norm.
    layers, *_ = layers
    used = np.abs(layers[0][0]).sum(1) > 0
    assert used.sum() < Z_DIM and not used[used.sum() :].any()


def test_too_narrow():
    factors = factors_of_style("toon-head")
    with pytest.raises(InputError, match="config.generator.z_dim: 10, expected from 41"):
        factor_layers(factors, z_dim=10, width=WIDTH)
    with pytest.raises(InputError, match="config.generator.w_dim: 100, expected from"):
        factor_layers(factors, z_dim=Z_DIM, width=100)
