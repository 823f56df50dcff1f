"""stylegan2-ada-pytorch's pickles: read as data, and drawn as a reference in torch draws them.

No released file is here. The pickles are made of classes that pickle as the published ones do.
"""

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.errors import InputError
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert
from tools.convert_weights.source_file import read_source
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
F = torch.nn.functional

FIR = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
WIDTHS = {4: 8, 8: 8, 16: 6}
W_DIM = 5


@pytest.fixture
def published_names(monkeypatch):
    return publish_names(monkeypatch)


def publish_names(monkeypatch):
    """Modules of the published names, whose function must never run."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the reader called into the pickle's code")

    class EasyDict(dict):
        pass

    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    for name, module in {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return persistence, util


class Network:
    """Pickles as a persistent torch module: a call with one dict."""

    def __init__(self, name, tensors, modules=(), source="", **fields):
        self.meta = (name, tensors, dict(modules), source, fields)

    def __reduce__(self):
        name, tensors, modules, source, fields = self.meta
        learned = {k: v for k, v in tensors.items() if isinstance(v, torch.nn.Parameter)}
        util = sys.modules["dnnlib.util"]
        state = {
            "training": False,
            "_parameters": OrderedDict(learned),
            "_buffers": OrderedDict((k, v) for k, v in tensors.items() if k not in learned),
            "_non_persistent_buffers_set": {"unused"},
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(modules),
            "_init_args": (),
            "_init_kwargs": util.EasyDict(num_layers=2),
            "weight_gain": np.sqrt(2) / 3,
            **fields,
        }
        meta = util.EasyDict(
            type="class", version=6, module_src=source, class_name=name, state=state
        )
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def weights(rng, *shape, scale=1.0):
    x = torch.from_numpy(rng.normal(0, scale, shape).astype(np.float32))
    return torch.nn.Parameter(x)


def dense(rng, inputs, outputs, scale=1.0):
    return {"weight": weights(rng, outputs, inputs, scale=scale), "bias": weights(rng, outputs)}


def make_generator(rng, *, source="", c_dim=0, fir=FIR):
    """A tiny G_ema and its tensors, {"synthesis.b4.const": ...}."""
    state = {}

    def node(path, name, tensors, modules=(), **fields):
        prefix = f"{path}." if path else ""
        state.update({f"{prefix}{k}": v for k, v in tensors.items()})
        return Network(name, tensors, modules, source, **fields)

    def layer(path, inputs, outputs, size, kernel=3, noise=True):
        weight = weights(rng, outputs, inputs, kernel, kernel).detach()
        # Networks with 16-bit blocks keep kernels with channels last.
        tensors = {
            "weight": torch.nn.Parameter(weight.contiguous(memory_format=torch.channels_last)),
            "bias": weights(rng, outputs),
        }
        if noise:
            tensors |= {
                "noise_strength": torch.nn.Parameter(torch.tensor(0.3)),
                "noise_const": weights(rng, size, size).detach(),
                "resample_filter": fir,
            }
        affine = dense(rng, W_DIM, inputs)
        modules = {"affine": node(f"{path}.affine", "FullyConnectedLayer", affine)}
        return node(path, "SynthesisLayer" if noise else "ToRGBLayer", tensors, modules)

    blocks = {}
    for size, width in WIDTHS.items():
        path, inputs = f"synthesis.b{size}", WIDTHS.get(size // 2)
        modules = {"conv0": layer(f"{path}.conv0", inputs, width, size)} if inputs else {}
        modules["conv1"] = layer(f"{path}.conv1", width, width, size)
        modules["torgb"] = layer(f"{path}.torgb", width, 3, size, kernel=1, noise=False)
        own = {"resample_filter": fir}
        own |= {} if inputs else {"const": weights(rng, width, 4, 4)}
        blocks[f"b{size}"] = node(path, "SynthesisBlock", own, modules, resolution=size)
    mapping = {
        f"fc{i}": node(f"mapping.fc{i}", "FullyConnectedLayer", dense(rng, 5, 5, 100.0))
        for i in range(2)
    }
    if c_dim:
        embed = dense(rng, c_dim, 5)
        mapping["embed"] = node("mapping.embed", "FullyConnectedLayer", embed)
    parts = {
        "synthesis": node("synthesis", "SynthesisNetwork", {}, blocks, img_resolution=16),
        "mapping": node(
            "mapping", "MappingNetwork", {"w_avg": weights(rng, W_DIM).detach()}, mapping
        ),
    }
    return node("", "Generator", {}, parts, z_dim=5, c_dim=c_dim), state


def write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def lrelu(x):
    return F.leaky_relu(x, 0.2) * 2**0.5


def reference_w(state, z):
    """Mapping: every dense layer's weight and bias times the learning rate multiplier 0.01."""
    x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for i in range(2):
        weight = state[f"mapping.fc{i}.weight"] * (0.01 / x.shape[1] ** 0.5)
        x = lrelu(x @ weight.T + state[f"mapping.fc{i}.bias"] * 0.01)
    return x


def zero_inserted(x, before, after):
    """Zeros between the pixels and after the last, then padding, then the filter with gain 4."""
    batch, channels, height, width = x.shape
    y = x.new_zeros(batch, channels, height, 2, width, 2)
    y[:, :, :, 0, :, 0] = x
    return filtered(y.reshape(batch, channels, 2 * height, 2 * width), before, after)


def filtered(x, before, after):
    x = F.pad(x, (before, after, before, after))
    kernel = 4 * FIR.to(x.dtype)
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def reference_conv(state, path, x, w, *, up=False, rgb=False):
    """One sample at a time, its weights scaled by its styles."""
    affine = f"{path}.affine"
    styles = w @ state[f"{affine}.weight"].T / w.shape[1] ** 0.5 + state[f"{affine}.bias"]
    out = []
    for sample, style in zip(x, styles, strict=True):
        weight = state[f"{path}.weight"]
        if rgb:
            # Without demodulation the gain 1/sqrt(fan in) counts.
            weight = weight * style[None, :, None, None] / weight[0].numel() ** 0.5
        else:
            weight = weight * style[None, :, None, None]
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if up:
            y = F.conv_transpose2d(sample[None], weight.transpose(0, 1), stride=2)
            out.append(filtered(y, 1, 1))
        else:
            out.append(F.conv2d(sample[None], weight, padding=weight.shape[-1] // 2))
    y = torch.cat(out)
    if not rgb:
        y = y + state[f"{path}.noise_const"] * state[f"{path}.noise_strength"]
    y = y + state[f"{path}.bias"][None, :, None, None]
    return y if rgb else lrelu(y)


def reference_image(state, w_plus):
    """The skip architecture: a block's ToRGB shares its row with the next block's first layer."""
    x = state["synthesis.b4.const"].expand(len(w_plus), -1, -1, -1)
    x = reference_conv(state, "synthesis.b4.conv1", x, w_plus[:, 0])
    image = reference_conv(state, "synthesis.b4.torgb", x, w_plus[:, 1], rgb=True)
    row = 1
    for size in list(WIDTHS)[1:]:
        block = f"synthesis.b{size}"
        x = reference_conv(state, f"{block}.conv0", x, w_plus[:, row], up=True)
        x = reference_conv(state, f"{block}.conv1", x, w_plus[:, row + 1])
        rgb = reference_conv(state, f"{block}.torgb", x, w_plus[:, row + 2], rgb=True)
        image = zero_inserted(image, 2, 1) + rgb
        row += 2
    return image


def test_a_converted_pickle_draws_what_the_reference_draws(published_names, tmp_path):
    rng = np.random.default_rng(0)
    trap = tmp_path / "trap"
    g_ema, state = make_generator(rng, source=f"open({str(trap)!r}, 'w')")
    other, _ = make_generator(np.random.default_rng(1))
    content = {
        "G": other,
        "D": Network("Discriminator", {"b4.out.weight": weights(rng, 1, 3)}),
        "G_ema": g_ema,
        "augment_pipe": None,
        "training_set_kwargs": published_names[1].EasyDict(path="data.zip", use_labels=False),
    }
    path = write(tmp_path / "network-snapshot-000100.pkl", content)
    report = convert([path], tmp_path / "out")
    assert "family stylegan2_ada" in report and "ignored:" in report
    assert not trap.exists()

    model = ij.load(tmp_path / "out")
    state = {k: v.detach().double() for k, v in state.items()}
    np.testing.assert_array_equal(model.w_avg, state["mapping.w_avg"].float())
    z = rng.standard_normal((2, 5)).astype(np.float32)
    want = reference_w(state, torch.from_numpy(z).double())
    np.testing.assert_allclose(model.map(z), want, rtol=1e-5, atol=1e-5)
    w_plus = rng.standard_normal((2, 6, W_DIM)).astype(np.float32)
    want = reference_image(state, torch.from_numpy(w_plus).double()).permute(0, 2, 3, 1)
    got = np.asarray(model.synthesize(w_plus))
    print(f"stylegan2_ada: {np.abs(got - want.numpy()).max() / np.abs(want.numpy()).max():.1e}")
    assert np.abs(got - want.numpy()).max() <= 2e-6 * np.abs(want.numpy()).max()


def test_a_state_dict_gives_the_same_weights_as_the_pickle(published_names, tmp_path):
    g_ema, state = make_generator(np.random.default_rng(0))
    pickled = read_source(write(tmp_path / "g.pkl", {"G_ema": g_ema})).arrays()
    torch.save({"G_ema": {k: v.detach() for k, v in state.items()}}, tmp_path / "g.pt")
    saved = read_source(tmp_path / "g.pt").arrays()
    assert {k.replace(".", "/") for k in saved} == pickled.keys()
    for key, value in saved.items():
        np.testing.assert_array_equal(pickled[key.replace(".", "/")], value)


@pytest.mark.parametrize("strengths", [False, True], ids=["use_noise=False", "no buffers"])
def test_a_network_without_noise_buffers_is_read_and_comes_back(tmp_path, strengths):
    _, state = make_generator(np.random.default_rng(0))
    left_out = ("noise_const",) if strengths else ("noise_const", "noise_strength")
    state = {k: v.detach() for k, v in state.items() if not k.endswith(left_out)}
    torch.save({"G_ema": state}, tmp_path / "g.pt")
    report = convert([tmp_path / "g.pt"], tmp_path / "out")
    assert "note: no noise buffers in the source, drawn (seed 0)" in report
    assert ("strength 0" in report) != strengths
    weights = load_weights(tmp_path / "out")
    assert weights.metadata["extra"]["noise"] == {"seed": 0, "used": strengths}
    generator = weights.variables["generator"]
    want = np.float32(0.3 if strengths else 0)
    assert all(
        layer["noise_strength"] == want
        for name, layer in generator["params"].items()
        if name.startswith(("up_", "conv_"))
    )
    to_pytorch(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)["G_ema"]
    drawn = {k for k in back if k.endswith("noise_const")}
    # NVIDIA's networks without noise refuse such keys, the others need them.
    assert back.keys() - drawn == state.keys() and bool(drawn) == strengths
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


def rosinality(state):
    """The same generator in rosinality's names and axes, written out by hand."""
    out = {"input.input": state["synthesis.b4.const"][None]}

    def dense(source, target):
        out[f"{target}.weight"] = state[f"{source}.weight"]
        out[f"{target}.bias"] = state[f"{source}.bias"]

    def conv(source, target):
        out[f"{target}.conv.weight"] = state[f"{source}.weight"][None]
        dense(f"{source}.affine", f"{target}.conv.modulation")

    def styled(source, target, number):
        conv(source, target)
        out[f"{target}.activate.bias"] = state[f"{source}.bias"]
        out[f"{target}.noise.weight"] = state[f"{source}.noise_strength"].reshape(1)
        out[f"noises.noise_{number}"] = state[f"{source}.noise_const"][None, None]

    def to_rgb(source, target):
        conv(source, target)
        out[f"{target}.bias"] = state[f"{source}.bias"].reshape(1, 3, 1, 1)

    dense("mapping.fc0", "style.1")
    dense("mapping.fc1", "style.2")
    styled("synthesis.b4.conv1", "conv1", 0)
    to_rgb("synthesis.b4.torgb", "to_rgb1")
    for i, size in enumerate((8, 16)):
        styled(f"synthesis.b{size}.conv0", f"convs.{2 * i}", 2 * i + 1)
        styled(f"synthesis.b{size}.conv1", f"convs.{2 * i + 1}", 2 * i + 2)
        to_rgb(f"synthesis.b{size}.torgb", f"to_rgbs.{i}")
        out[f"convs.{2 * i}.conv.blur.kernel"] = 4 * FIR
        out[f"to_rgbs.{i}.upsample.kernel"] = 4 * FIR
    return {"g_ema": out, "latent_avg": state["mapping.w_avg"]}


def test_rosinalitys_layout_of_the_same_numbers_is_the_same_network(published_names, tmp_path):
    """So the reference above holds for his files too."""
    g_ema, state = make_generator(np.random.default_rng(0))
    convert([write(tmp_path / "g.pkl", {"G_ema": g_ema})], tmp_path / "ada")
    state = {k: v.detach() for k, v in state.items()}
    torch.save(rosinality(state), tmp_path / "g.pt")
    assert "family stylegan2\n" in convert([tmp_path / "g.pt"], tmp_path / "rosinality")
    ada, other = (load_weights(tmp_path / name) for name in ("ada", "rosinality"))
    assert ada.metadata["architectures"] == other.metadata["architectures"]
    jax.tree.map(np.testing.assert_array_equal, ada.variables, other.variables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"c_dim": 3}, "a conditional generator"),
        ({"fir": torch.ones(4, 4) / 16}, "resample_filter is another filter"),
        ({"fir": torch.ones(6, 6) / 36}, "resample_filter is another filter"),
    ],
)
def test_other_networks_are_refused(published_names, tmp_path, options, message):
    g_ema, _ = make_generator(np.random.default_rng(0), **options)
    with pytest.raises(InputError, match=message):
        convert([write(tmp_path / "g.pkl", {"G_ema": g_ema})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensorflow_pickle_is_told_apart(tmp_path):
    # What such a file begins with: protocol 2, then the class by name.
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81.")
    with pytest.raises(InputError, match=r"names dnnlib.tflib.network.Network; it is of Tensor"):
        read_source(tmp_path / "x.pkl")


class Call:
    """Pickles as a call of the named function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def evil(trap: Path):
    """Things that a careless reader would run."""
    storage = torch.storage._load_from_bytes
    inner = pickle.dumps(Call(open, str(trap), "w"))
    four = torch.ones(4)

    def tensor(offset, shape, strides):
        parts = four.__reduce_ex__(4)[1]
        return Call(torch._utils._rebuild_tensor_v2, parts[0], offset, shape, strides, *parts[4:])

    return {
        "a pickle for a storage": Call(
            torch._utils._rebuild_tensor_v2,
            Call(storage, inner),
            0,
            (1,),
            (1,),
            False,
            OrderedDict(),
        ),
        "a function": Call(open, str(trap), "w"),
        "beyond the storage": tensor(2, (3,), (1,)),
        "a repeated number": tensor(0, (10**9,), (0,)),
        "no storage": Call(torch._utils._rebuild_parameter, 3, True, OrderedDict()),
    }


@pytest.mark.parametrize(
    "case", ["a pickle for a storage", "a function", "beyond the storage", "a repeated number",
             "no storage"],
)  # fmt: skip
def test_nothing_runs_and_nothing_is_read_beyond_a_storage(tmp_path, case):
    trap = tmp_path / "trap"
    path = write(tmp_path / "x.pkl", {"G_ema": evil(trap)[case]})
    with pytest.raises(InputError) as error:
        read_source(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not trap.exists()
