"""Files of pSp, e4e, ReStyle and IntereStyle: converted to the same numbers, and back.

The reference is the official networks' arithmetic on the official keys, in PyTorch and float64.
"""

import dataclasses

import jax
import numpy as np
import pytest

from interestyle_jax.weights import load_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.source_file import SourceFile
from tools.convert_weights.tensor_map import misfits

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
F = torch.nn.functional

NAMES = (
    "psp",
    "e4e",
    "restyle_psp",
    "restyle_e4e",
    "restyle_psp_resnet",
    "restyle_e4e_resnet",
    "interestyle",
)


def norm(s, key, x):
    return F.batch_norm(
        x,
        s[f"{key}.running_mean"],
        s[f"{key}.running_var"],
        s[f"{key}.weight"],
        s[f"{key}.bias"],
        eps=1e-5,
    )


def prelu(s, key, x):
    return F.prelu(x, s[f"{key}.weight"])


def ir_block(s, key, x, stride):
    y = F.conv2d(norm(s, f"{key}.res_layer.0", x), s[f"{key}.res_layer.1.weight"], padding=1)
    y = prelu(s, f"{key}.res_layer.2", y)
    y = F.conv2d(y, s[f"{key}.res_layer.3.weight"], stride=stride, padding=1)
    y = norm(s, f"{key}.res_layer.4", y)
    gate = F.relu(F.conv2d(y.mean((2, 3), keepdim=True), s[f"{key}.res_layer.5.fc1.weight"]))
    y = y * torch.sigmoid(F.conv2d(gate, s[f"{key}.res_layer.5.fc2.weight"]))
    if f"{key}.shortcut_layer.0.weight" not in s:
        return y + x[:, :, ::stride, ::stride]
    x = F.conv2d(x, s[f"{key}.shortcut_layer.0.weight"], stride=stride)
    return y + norm(s, f"{key}.shortcut_layer.1", x)


def basic_block(s, key, x, stride):
    y = F.conv2d(x, s[f"{key}.conv1.weight"], stride=stride, padding=1)
    y = F.relu(norm(s, f"{key}.bn1", y))
    y = norm(s, f"{key}.bn2", F.conv2d(y, s[f"{key}.conv2.weight"], padding=1))
    if f"{key}.downsample.0.weight" in s:
        x = F.conv2d(x, s[f"{key}.downsample.0.weight"], stride=stride)
        x = norm(s, f"{key}.downsample.1", x)
    return F.relu(x + y)


def head(s, i, x):
    k = 0
    while f"styles.{i}.convs.{k}.weight" in s:
        weight, bias = s[f"styles.{i}.convs.{k}.weight"], s[f"styles.{i}.convs.{k}.bias"]
        x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1), 0.01)
        k += 2
    weight = s[f"styles.{i}.linear.weight"]
    return x.flatten(1) @ weight.T / np.sqrt(weight.shape[1]) + s[f"styles.{i}.linear.bias"]


def reference(kind, state, x):
    """The official encoder of image pairs x [B, H, W, C]: W+ [B, L, D] of the last stage."""
    s = {k.removeprefix("encoder."): torch.tensor(v).double() for k, v in state.items()}
    x = torch.from_numpy(x.transpose(0, 3, 1, 2)).double()
    maps = []
    if kind.is_resnet:
        x = prelu(s, "relu", norm(s, "bn1", F.conv2d(x, s["conv1.weight"], stride=2, padding=3)))
        block, strides = basic_block, (1, 1, 2, 2)
    else:
        x = norm(s, "input_layer.1", F.conv2d(x, s["input_layer.0.weight"], padding=1))
        x = prelu(s, "input_layer.2", x)
        block, strides = ir_block, (2, 1, 2, 2)
    for i, stride in enumerate(strides):
        x = block(s, f"body.{i}", x, stride)
        maps.append(x)
    styles = len({k.split(".")[1] for k in s if k.startswith("styles.")})
    scales = [x] * styles
    if kind.is_pyramid:
        for k, below in ((1, maps[2]), (2, maps[1])):
            x = F.interpolate(x, below.shape[2:], mode="bilinear", align_corners=True)
            x = x + F.conv2d(below, s[f"latlayer{k}.weight"], s[f"latlayer{k}.bias"])
            scales[3 if k == 1 else 7 :] = [x] * (styles - (3 if k == 1 else 7))
    rows = torch.stack([head(s, i, scale) for i, scale in enumerate(scales)], 1)
    if kind.is_progressive:
        rows[:, 1:] += rows[:, :1]
    return rows.numpy()


@pytest.fixture(scope="module", params=NAMES)
def converted(request, tmp_path_factory, official_inverters):
    """(kind, the file's content, the report, the weights) of each kind."""
    kind, folder = official_inverters.kinds[request.param], tmp_path_factory.mktemp(request.param)
    content = official_inverters.make_checkpoint(kind)
    official_inverters.save(content, folder / "x.pt")
    report = convert([folder / "x.pt"], folder / "out")
    return kind, content, report, load_weights(folder / "out")


def test_converted_networks_compute_the_same(converted, official_inverters):
    kind, content, report, weights = converted
    assert weights.metadata["family"] == kind.family
    assert f"family {kind.family}" in report
    encoder, variables = weights.part("encoder")
    assert type(encoder).__name__ == kind.encoder_type
    is_cars = "cars" in kind.options["dataset_type"]
    shape = (24, 32) if is_cars else (32, 32)
    assert weights.metadata["extra"]["image_shape"] == list(shape)
    x = np.random.default_rng(2).uniform(-1, 1, (2, *shape, kind.channels)).astype(np.float32)
    got = np.asarray(jax.jit(encoder.apply)(variables, x), np.float64)
    want = reference(kind, content["state_dict"], x)
    assert got.shape == (2, official_inverters.num_styles, official_inverters.w_dim)
    assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want)

    generator, variables = weights.part("generator")
    assert generator == official_inverters.generator
    jax.tree.map(np.testing.assert_array_equal, variables, official_inverters.generator_variables)
    np.testing.assert_array_equal(weights.variables["w_avg"], content["latent_avg"])
    if not kind.is_progressive:
        assert "latent_discriminator" not in weights.variables
        return
    assert "optimizer" in report and "global_step" in report
    discriminator, variables = weights.part("latent_discriminator")
    layers = content["discriminator_state_dict"]
    w = np.random.default_rng(4).normal(size=(3, official_inverters.w_dim)).astype(np.float32)
    want = torch.from_numpy(w)
    for i in (0, 2, 4, 6):
        want = want if i == 0 else F.leaky_relu(want, 0.2)
        weight, bias = (torch.from_numpy(layers[f"mlp.{i}.{leaf}"]) for leaf in ("weight", "bias"))
        want = F.linear(want, weight, bias)
    got = jax.jit(discriminator.apply)(variables, w)
    np.testing.assert_allclose(got, want.numpy()[:, 0], rtol=1e-5, atol=1e-5)


def test_way_back_changes_no_bit(converted):
    kind, content, _, weights = converted
    restored = FAMILIES[kind.family].restore(weights)
    names = ["state_dict", "opts", "latent_avg"]
    names += ["discriminator_state_dict"] if kind.is_progressive else []
    assert sorted(restored) == sorted(names)
    arrays = {("latent_avg", ""): (content["latent_avg"], restored["latent_avg"])}
    for name in names:
        if name.endswith("state_dict"):
            assert restored[name].keys() == content[name].keys()
            for key, array in content[name].items():
                arrays[name, key] = array, restored[name][key]
    for place, (want, got) in arrays.items():
        assert (want.dtype, want.shape) == (got.dtype, got.shape), place
        assert want.tobytes() == got.tobytes(), place
    assert restored["opts"] == content["opts"]
    assert type(restored["opts"]["device"]) is type(content["opts"]["device"])


@pytest.mark.parametrize("shape", [(6,), (1, 6), None])
def test_latent_avg_of_one_row_and_none(shape, tmp_path, official_inverters):
    content = official_inverters.make_checkpoint(official_inverters.kinds["restyle_psp"])
    w_dim = official_inverters.w_dim
    del content["latent_avg"]
    if shape is not None:
        content["latent_avg"] = np.arange(w_dim, dtype=np.float32).reshape(shape)
    official_inverters.save(content, tmp_path / "x.pt")
    convert([tmp_path / "x.pt"], tmp_path / "out")
    weights = load_weights(tmp_path / "out")
    w_avg = weights.variables["w_avg"]
    assert w_avg.shape == (w_dim,)
    if shape is None:
        samples = weights.metadata["extra"]["w_avg"]["samples"]
        z = np.random.default_rng(3).standard_normal((20_000, w_dim)).astype(np.float32)
        generator, variables = weights.part("generator")
        w = generator.apply(variables, z, method="map")
        assert samples >= 10_000
        # Two independent means; five standard errors.
        error = np.sqrt(np.var(w, axis=0) * (1 / len(w) + 1 / samples))
        assert np.all(np.abs(w_avg - np.mean(w, axis=0)) < 5 * error)
    else:
        np.testing.assert_array_equal(w_avg, np.arange(w_dim))
        restored = FAMILIES["restyle_psp"].restore(weights)
        assert restored["latent_avg"].shape == shape


def test_weights_trained_here_get_the_options_that_rebuild_them(converted):
    kind, _, _, weights = converted
    weights = dataclasses.replace(weights, metadata=weights.metadata | {"extra": {}})
    restored = FAMILIES[kind.family].restore(weights)
    state = {k: v for k, v in restored["state_dict"].items() if "num_batches" not in k}
    again = SourceFile.of("x.pt", restored | {"state_dict": state})
    assert recognise([again]) == kind.family
    plan = FAMILIES[kind.family].plan([again])
    assert type(plan.modules["encoder"]).__name__ == kind.encoder_type
    assert misfits(plan.arrays, plan.sections) == []
