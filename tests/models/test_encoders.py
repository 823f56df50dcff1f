"""The encoder against plain NumPy at tiny size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models.encoders import BackboneEncoder, StyleHeads
from interestyle_jax.models.ir_se import IRBlock


def convolve(x, kernel, stride=1):
    """Definition of a convolution with (k - 1) / 2 zeros around; x [B, H, W, C], kernel HWIO."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height = (x.shape[1] - size) // stride + 1
    width = (x.shape[2] - size) // stride + 1
    out = np.zeros((x.shape[0], height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.einsum("bhwc,hwco->bo", window, kernel)
    return out


def normalise(x, params):
    flat = x.reshape(-1, x.shape[-1])
    return (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * params["scale"] + params["bias"]


def block_by_definition(x, p, stride):
    y = convolve(normalise(x, p["norm_1"]), p["conv_1"]["kernel"])
    y = np.where(y >= 0, y, p["prelu"]["slope"] * y)
    y = normalise(convolve(y, p["conv_2"]["kernel"], stride), p["norm_2"])
    gate = np.maximum(y.mean((1, 2)) @ p["squeeze_excitation"]["reduce"]["kernel"], 0)
    gate = 1 / (1 + np.exp(-gate @ p["squeeze_excitation"]["expand"]["kernel"]))
    y = y * gate[:, None, None]
    if "shortcut_conv" in p:
        shortcut = convolve(x, p["shortcut_conv"]["kernel"], stride)
        return y + normalise(shortcut, p["shortcut_norm"])
    return y + x[:, ::stride, ::stride]


def random_variables(module, x, seed):
    """Variables with no entry at its initial value, so that none can be forgotten unnoticed."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)

    def draw(spec):
        spread = 0.3 if len(spec.shape) == 1 else 1 / np.sqrt(np.prod(spec.shape[:-1]))
        centre = 1.0 if len(spec.shape) == 1 else 0.0
        return rng.normal(centre, spread, spec.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize(("features", "stride"), [(32, 2), (32, 1), (16, 2)])
def test_block_is_its_definition(features, stride):
    x = np.random.default_rng(1).standard_normal((2, 5, 6, 32)).astype(np.float32)
    block = IRBlock(features, stride)
    variables = random_variables(block, x, 2)
    params = variables["params"]
    assert ("shortcut_conv" in params) == (features != 32)
    apply = jax.jit(lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"]))
    y, _ = apply(variables, x)
    np.testing.assert_allclose(y, block_by_definition(x, params, stride), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 4), (3, 4)])
def test_heads_are_separate_networks_side_by_side(size):
    heads = StyleHeads(num_styles=3, depth=2, width=5, w_dim=7)
    x = np.random.default_rng(3).standard_normal((2, *size, 6)).astype(np.float32)
    params = random_variables(heads, x, 4)["params"]
    delta = jax.jit(heads.apply)({"params": params}, x)
    assert delta.shape == (2, 3, 7)
    for i in range(3):
        y = x
        for k in range(2):
            kernel = params[f"conv_{k}_kernel"][..., 5 * i : 5 * i + 5]
            y = convolve(y, kernel, 2) + params[f"conv_{k}_bias"][5 * i : 5 * i + 5]
            y = np.where(y >= 0, y, 0.01 * y)
        want = y.reshape(2, 5) @ params["dense_kernel"][:, 7 * i : 7 * i + 7] / np.sqrt(5)
        want = want + params["dense_bias"][7 * i : 7 * i + 7]
        np.testing.assert_allclose(delta[:, i], want, rtol=1e-4, atol=1e-5)


# Sums over the trainable encoder entries of golden/manifests/restyle_psp_ffhq.json, and the same
# less four heads for the 14 styles of a 256 generator.
@pytest.mark.parametrize(("num_styles", "count"), [(18, 205_585_792), (14, 166_778_240)])
def test_parameter_count_at_official_size(num_styles, count):
    encoder = BackboneEncoder(num_styles=num_styles)
    x = jax.ShapeDtypeStruct((1, 256, 256, 6), jnp.float32)
    params = jax.eval_shape(encoder.init, jax.random.key(0), x)["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == count


TINY = BackboneEncoder(
    num_styles=4, input_size=16, units=(1,), widths=(4, 8), head_width=8, w_dim=6
)


def test_training_pass_moves_every_statistic():
    x = np.random.default_rng(5).standard_normal((2, 16, 16, 6)).astype(np.float32)
    variables = random_variables(TINY, x, 6)
    apply = jax.jit(lambda v: TINY.apply(v, x, train=True, mutable=["batch_stats"]))
    delta, new = apply(variables)
    assert delta.shape == (2, 4, 6)
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(new["batch_stats"])
    assert len(before) == len(after) == 2 * 4
    for a, b in zip(before, after, strict=True):
        assert np.all(np.asarray(a) != np.asarray(b))


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (1, 32, 32, 6), (16, 16, 6)])
def test_input_of_another_shape_is_refused(shape):
    variables = jax.eval_shape(TINY.init, jax.random.key(0), jnp.zeros((1, 16, 16, 6)))
    with pytest.raises(ValueError, match="encoder input: expected"):
        jax.eval_shape(TINY.apply, variables, jnp.zeros(shape))
