"""MTCNN's networks against PyTorch at tiny size, and the official code at full size.

Every network goes through its file's official layout and the converter.
"""

import jax
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.mtcnn import ONet, PNet, RNet, ceil_max_pool
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert
from tools.convert_weights.families.mtcnn import NETWORKS, entries

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
F = torch.nn.functional

WIDTHS = {"pnet": (3, 4, 5), "rnet": (3, 4, 5, 6), "onet": (3, 4, 5, 6, 7)}
POOLS = {"pnet": (2, 0, 0), "rnet": (3, 3, 0), "onet": (3, 3, 2, 0)}
INPUTS = {"pnet": (1, 21, 34, 3), "rnet": (2, 24, 24, 3), "onet": (2, 48, 48, 3)}
# Which head is which output, in the order that the networks return them.
HEADS = {
    "pnet": ("conv4_2", "conv4_1"),
    "rnet": ("conv5_2", "conv5_1"),
    "onet": ("conv6_3", "conv6_2", "conv6_1"),
}


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def reference(name, x, p):
    """The definition, by the official keys; the class scores are the last output."""
    x = nchw(x)
    for i, pool in enumerate(POOLS[name], 1):
        x = F.conv2d(x, p[f"features.conv{i}.weight"], p[f"features.conv{i}.bias"])
        x = F.prelu(x, p[f"features.prelu{i}.weight"])
        x = F.max_pool2d(x, pool, 2, ceil_mode=True) if pool else x
    if name == "pnet":
        outputs = [F.conv2d(x, p[f"{k}.weight"], p[f"{k}.bias"]) for k in HEADS[name]]
        outputs[-1] = F.softmax(outputs[-1], dim=-1)
        return [y.permute(0, 2, 3, 1) for y in outputs]
    i = len(POOLS[name]) + 1
    x = x.transpose(2, 3).flatten(1)
    x = F.linear(x, p[f"features.conv{i}.weight"], p[f"features.conv{i}.bias"])
    x = F.prelu(x, p[f"features.prelu{i}.weight"])
    outputs = [F.linear(x, p[f"{k}.weight"], p[f"{k}.bias"]) for k in HEADS[name]]
    outputs[-1] = F.softmax(outputs[-1], dim=-1)
    return outputs


def test_tiny_networks_are_their_definition(tmp_path):
    rng = np.random.default_rng(0)
    contents = {}
    for name, widths in WIDTHS.items():
        shapes = registry.variable_shapes(registry.describe(NETWORKS[name](widths)))
        contents[name] = {}
        for entry in entries(name, widths):
            spec = shapes
            for key in entry.target.split("/"):
                spec = spec[key]
            value = entry.layout.to_source(rng.normal(0, 0.4, spec.shape).astype(np.float32))
            contents[name][entry.source] = np.array(value)
        np.save(tmp_path / f"{name}.npy", contents[name], allow_pickle=True)
    files = [tmp_path / f"{name}.npy" for name in ("rnet", "onet", "pnet")]
    assert "family mtcnn\n" in convert(files, tmp_path / "out")
    weights = load_weights(tmp_path / "out")
    for name, shape in INPUTS.items():
        module, variables = weights.part(name)
        assert module == NETWORKS[name](WIDTHS[name])
        x = rng.uniform(-1, 1, shape).astype(np.float32)
        got = jax.jit(module.apply)(variables, x)
        want = reference(name, x, jax.tree.map(torch.from_numpy, contents[name]))
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("side", [4, 5, 6, 7])
def test_ceil_pool_is_pytorchs(side, window):
    x = np.random.default_rng(side).normal(-5, 1, (1, side, side + 1, 2)).astype(np.float32)
    want = F.max_pool2d(nchw(x), window, 2, ceil_mode=True).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(ceil_max_pool(x, window), want)


@pytest.mark.parametrize(("network", "count"), [(PNet, 6632), (RNet, 100_178), (ONet, 389_040)])
def test_parameter_count_at_official_size(network, count):
    shapes = registry.variable_shapes(registry.describe(network()))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("network", [RNet, ONet])
def test_patches_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match="patches: expected"):
        network().init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))


def test_official_networks(golden_weights, golden_case):
    """Within golden/README.md's tolerances for MTCNN."""
    numbers, inputs = golden_case("mtcnn")
    layouts = {f"{name}.npy": lambda fill, name=name: fill(name) for name in WIDTHS}
    weights = load_weights(golden_weights("mtcnn", layouts))
    for name in WIDTHS:
        module, variables = weights.part(name)
        outputs = jax.jit(module.apply)(variables, inputs[f"input:mtcnn:{name[0]}"])
        for i, got in enumerate(outputs):
            want = numbers[f"{name}/out{i}"]
            got = np.asarray(got, np.float64)
            got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
            assert got.shape == want.shape
            rel_l2 = np.linalg.norm(got - want) / np.linalg.norm(want)
            rel_max = np.abs(got - want).max() / np.abs(want).max()
            print(f"parity mtcnn {name}/out{i}: rel L2 {rel_l2:.2e}, rel max {rel_max:.2e}")
            assert rel_l2 < 5e-6 and rel_max < 1e-5
