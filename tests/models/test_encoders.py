"""The encoder against plain NumPy at tiny size, and against the official code at full size."""

import importlib.util
import json
import re

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


def flax_path(key):
    """Official key of one tensor -> (collection, path); style heads are gathered elsewhere."""
    leaf = {
        "weight": ("params", "scale"),
        "bias": ("params", "bias"),
        "running_mean": ("batch_stats", "mean"),
        "running_var": ("batch_stats", "var"),
    }
    key = key.removeprefix("encoder.")
    stem = {
        "input_layer.0": "stem_conv",
        "input_layer.1": "stem_norm",
        "input_layer.2": "stem_prelu",
    }
    inner = {
        "res_layer.0": "norm_1", "res_layer.1": "conv_1", "res_layer.2": "prelu",
        "res_layer.3": "conv_2", "res_layer.4": "norm_2", "shortcut_layer.0": "shortcut_conv",
        "shortcut_layer.1": "shortcut_norm", "res_layer.5.fc1": "squeeze_excitation/reduce",
        "res_layer.5.fc2": "squeeze_excitation/expand",
    }  # fmt: skip
    module, name = key.rsplit(".", 1)
    if module in stem:
        path = [stem[module]]
    else:
        _, index, rest = module.split(".", 2)
        path = [f"block_{index}", *inner[rest].split("/")]
    if path[-1].startswith("conv") or path[-1] in (
        "stem_conv",
        "shortcut_conv",
        "reduce",
        "expand",
    ):
        return "params", [*path, "kernel"]
    if path[-1] in ("stem_prelu", "prelu"):
        return "params", [*path, "slope"]
    collection, last = leaf[name]
    return collection, [*path, last]


def official_variables(state_dict, num_styles):
    """The official encoder's tensors (NumPy, by their keys) as this encoder's variables."""
    variables = {"params": {"trunk": {}}, "batch_stats": {"trunk": {}}}
    heads = {}
    for key, value in state_dict.items():
        if not key.startswith("encoder.") or key.endswith("num_batches_tracked"):
            continue
        style = re.match(r"encoder\.styles\.(\d+)\.(convs\.\d+|linear)\.(weight|bias)", key)
        if style:
            heads[int(style[1]), style[2], style[3]] = value
            continue
        collection, path = flax_path(key)
        node = variables[collection]["trunk"]
        for part in path[:-1]:
            node = node.setdefault(part, {})
        if path[-1] == "kernel":
            dense = path[-2] in ("reduce", "expand")
            value = value[:, :, 0, 0].T if dense else value.transpose(2, 3, 1, 0)
        node[path[-1]] = value
    gathered = {}
    for k in range(4):
        weights = [heads[i, f"convs.{2 * k}", "weight"] for i in range(num_styles)]
        gathered[f"conv_{k}_kernel"] = np.concatenate(weights).transpose(2, 3, 1, 0)
        biases = [heads[i, f"convs.{2 * k}", "bias"] for i in range(num_styles)]
        gathered[f"conv_{k}_bias"] = np.concatenate(biases)
    weights = [heads[i, "linear", "weight"].T for i in range(num_styles)]
    gathered["dense_kernel"] = np.concatenate(weights, axis=1)
    biases = [heads[i, "linear", "bias"] for i in range(num_styles)]
    gathered["dense_bias"] = np.concatenate(biases)
    variables["params"]["heads"] = gathered
    return variables


@pytest.mark.slow
def test_official_encoder_at_256(golden_dir):
    spec = importlib.util.spec_from_file_location("goldenfill", golden_dir / "goldenfill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    manifest = json.loads((golden_dir / "manifests/restyle_psp_ffhq.json").read_text())
    entries = manifest["sections"]["state_dict"]
    keys = {key for key, _, _ in entries}
    state_dict = {
        key: fill.fill(key, shape, keys, dtype)
        for key, shape, dtype in entries
        if key.startswith("encoder.")
    }
    golden = np.load(golden_dir / "public/enc_restyle_psp.npz")
    pictures = [
        getattr(fill, r["call"])(r["name"], *r["args"], **r["kwargs"])
        for r in json.loads(str(golden["recipe_json"]))
    ]
    x = jnp.asarray(np.concatenate(pictures, axis=1).transpose(0, 2, 3, 1))
    variables = official_variables(state_dict, 18)
    delta = jax.jit(BackboneEncoder().apply)(variables, x)
    want = golden["wplus_delta_f64"]
    error = np.asarray(delta, np.float64) - want
    rel_l2 = np.linalg.norm(error) / np.linalg.norm(want)
    rel_max = np.abs(error).max() / np.abs(want).max()
    print(f"official encoder: rel L2 {rel_l2:.2e}, rel max {rel_max:.2e}")
    assert rel_l2 < 1e-5
    assert rel_max < 3e-5
