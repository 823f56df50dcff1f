"""Files of pSp, e4e, ReStyle and IntereStyle: told apart, converted to the same numbers, and back.

The reference is the official networks' arithmetic on the official keys, in PyTorch and float64.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights, resolve_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.families.stylegan2 import restore_generator
from tools.convert_weights.source_file import SourceFile, read_source
from tools.convert_weights.tensor_map import misfits
from tools.convert_weights.torch_file import Device

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
F = torch.nn.functional

GENERATOR = Generator(
    resolution=32, w_dim=6, z_dim=6, mapping_depth=2, channel_base=128, channel_max=8
)
STYLES, W_DIM, HEAD_WIDTH, SIZE = 8, 6, 5, 32


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of official file at tiny size; `manifest` is its name at full size."""

    family: str
    encoder_type: str
    manifest: str
    channels: int = 6
    opts: tuple = ()

    @property
    def is_pyramid(self):
        return self.encoder_type in ("GradualStyleEncoder", "Encoder4Editing")

    @property
    def is_resnet(self):
        return "ResNet" in self.encoder_type

    @property
    def is_progressive(self):
        return "Progressive" in self.encoder_type or self.encoder_type == "Encoder4Editing"

    @property
    def options(self):
        size = "stylegan_size" if self.family == "e4e" else "output_size"
        return {
            "encoder_type": self.encoder_type,
            size: 32,
            "device": "cuda:0",
            "dataset_type": "ffhq_encode",
            "lambda": 0.1,
            "checkpoint_path": None,
            "steps": [0, 1],
        } | dict(self.opts)


INTERESTYLE = (("device", torch.device("cuda:0")), ("apply_mask_loss", True))
CARS = (("dataset_type", "cars_encode"),)
KINDS = {
    "psp": Kind("psp", "GradualStyleEncoder", "psp_ffhq", 3),
    "e4e": Kind("e4e", "Encoder4Editing", "e4e_ffhq", 3),
    "restyle_psp": Kind("restyle_psp", "BackboneEncoder", "restyle_psp_ffhq"),
    "restyle_e4e": Kind("restyle_e4e", "ProgressiveBackboneEncoder", "restyle_e4e_ffhq"),
    "restyle_psp_resnet": Kind(
        "restyle_psp", "ResNetBackboneEncoder", "restyle_psp_resnet_512", opts=CARS
    ),
    "restyle_e4e_resnet": Kind(
        "restyle_e4e", "ResNetProgressiveBackboneEncoder", "restyle_e4e_resnet_256"
    ),
    "interestyle": Kind("interestyle", "BackboneEncoder", "interestyle_ffhq", opts=INTERESTYLE),
}


def batch_norm_shapes(key, width):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{leaf}": (width,) for leaf in leaves} | {f"{key}.num_batches_tracked": ()}


def encoder_shapes(kind):
    """{key: shape} of an encoder in the official naming, written out by hand."""
    shapes, before, widths = {}, 4, (4, 4, 8, 12)
    if kind.is_resnet:
        shapes["conv1.weight"] = (4, kind.channels, 7, 7)
        shapes |= batch_norm_shapes("bn1", 4) | {"relu.weight": (4,)}
    else:
        shapes["input_layer.0.weight"] = (4, kind.channels, 3, 3)
        shapes |= batch_norm_shapes("input_layer.1", 4) | {"input_layer.2.weight": (4,)}
    # Two blocks in the first stage, one in the others.
    for i, width in enumerate((widths[1], widths[1], widths[2], widths[3])):
        key = f"body.{i}"
        if kind.is_resnet:
            shapes[f"{key}.conv1.weight"] = (width, before, 3, 3)
            shapes[f"{key}.conv2.weight"] = (width, width, 3, 3)
            shapes |= batch_norm_shapes(f"{key}.bn1", width)
            shapes |= batch_norm_shapes(f"{key}.bn2", width)
            shortcut = f"{key}.downsample"
        else:
            shapes |= batch_norm_shapes(f"{key}.res_layer.0", before)
            shapes[f"{key}.res_layer.1.weight"] = (width, before, 3, 3)
            shapes[f"{key}.res_layer.2.weight"] = (width,)
            shapes[f"{key}.res_layer.3.weight"] = (width, width, 3, 3)
            shapes |= batch_norm_shapes(f"{key}.res_layer.4", width)
            shapes[f"{key}.res_layer.5.fc1.weight"] = (1, width, 1, 1)
            shapes[f"{key}.res_layer.5.fc2.weight"] = (width, 1, 1, 1)
            shortcut = f"{key}.shortcut_layer"
        if width != before:
            shapes[f"{shortcut}.0.weight"] = (width, before, 1, 1)
            shapes |= batch_norm_shapes(f"{shortcut}.1", width)
        before = width
    for i in range(STYLES):
        # Three halvings in the trunk leave 4 x 4, the pyramid's finer scales 8 x 8 and 16 x 16.
        depth = 2 + (kind.is_pyramid and (i >= 3) + (i >= 7))
        for k in range(depth):
            inputs = 12 if k == 0 else HEAD_WIDTH
            shapes[f"styles.{i}.convs.{2 * k}.weight"] = (HEAD_WIDTH, inputs, 3, 3)
            shapes[f"styles.{i}.convs.{2 * k}.bias"] = (HEAD_WIDTH,)
        shapes[f"styles.{i}.linear.weight"] = (W_DIM, HEAD_WIDTH)
        shapes[f"styles.{i}.linear.bias"] = (W_DIM,)
    if kind.is_pyramid:
        for k, width in ((1, 8), (2, 4)):
            shapes[f"latlayer{k}.weight"] = (12, width, 1, 1)
            shapes[f"latlayer{k}.bias"] = (12,)
    return shapes


def draw(key, shape, rng):
    """One tensor; no value is what an untrained network has, so that none can be forgotten."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(int(rng.integers(1, 9)))
    if len(shape) == 1:
        centre = 1.0 if key.endswith(("weight", "running_var")) else 0.0
        return torch.from_numpy(rng.uniform(-0.3, 0.3, shape).astype(np.float32) + centre)
    spread = 1.0 if "linear" in key else 1 / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(rng.normal(0, spread, shape).astype(np.float32))


def tiny_generator():
    shapes = registry.variable_shapes(registry.describe(GENERATOR))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    return variables, restore_generator(variables, registry.describe(GENERATOR))


def make_checkpoint(kind):
    """A whole file of this kind, as the official trainer writes it."""
    rng = np.random.default_rng(0)
    state = {f"encoder.{k}": draw(k, s, rng) for k, s in encoder_shapes(kind).items()}
    state |= {f"decoder.{k}": torch.from_numpy(v) for k, v in tiny_generator()[1].items()}
    content = {
        "state_dict": state,
        "latent_avg": torch.from_numpy(rng.normal(size=(STYLES, W_DIM)).astype(np.float32)),
        "opts": kind.options,
    }
    if kind.is_progressive:
        layers = {f"mlp.{i}": (W_DIM, W_DIM) for i in (0, 2, 4)} | {"mlp.6": (1, W_DIM)}
        content["discriminator_state_dict"] = {
            f"{key}.{leaf}": draw(f"{key}.{leaf}", shape if leaf == "weight" else shape[:1], rng)
            for key, shape in layers.items()
            for leaf in ("weight", "bias")
        }
        state = {0: {"step": 3, "exp_avg": torch.zeros(2)}}
        content |= {
            "global_step": 7,
            "best_val_loss": torch.tensor(0.5),
            "optimizer": {"state": state, "param_groups": [{"lr": 1e-4, "params": [0]}]},
            "discriminator_optimizer_state_dict": {"state": {}, "param_groups": []},
        }
    return content


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
    """The official encoder of picture pairs x [B, H, W, C]: W+ [B, L, D] of the last stage."""
    s = {k.removeprefix("encoder."): v.double() for k, v in state.items()}
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
    scales = [x] * STYLES
    if kind.is_pyramid:
        for k, below in ((1, maps[2]), (2, maps[1])):
            x = F.interpolate(x, below.shape[2:], mode="bilinear", align_corners=True)
            x = x + F.conv2d(below, s[f"latlayer{k}.weight"], s[f"latlayer{k}.bias"])
            scales[3 if k == 1 else 7 :] = [x] * (STYLES - (3 if k == 1 else 7))
    rows = torch.stack([head(s, i, scale) for i, scale in enumerate(scales)], 1)
    if kind.is_progressive:
        rows[:, 1:] += rows[:, :1]
    return rows.numpy()


@pytest.fixture(scope="module", params=KINDS)
def converted(request, tmp_path_factory):
    """(kind, the file's content, the report, the weights) of each kind."""
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp(request.param)
    content = make_checkpoint(kind)
    torch.save(content, folder / "x.pt")
    report = convert([folder / "x.pt"], folder / "out")
    return kind, content, report, load_weights(folder / "out")


def test_converted_networks_compute_the_same(converted):
    kind, content, report, weights = converted
    assert weights.metadata["family"] == kind.family
    assert f"family {kind.family}" in report
    encoder, variables = weights.part("encoder")
    assert type(encoder).__name__ == kind.encoder_type
    is_cars = "cars" in kind.options["dataset_type"]
    shape = (24, 32) if is_cars else (32, 32)
    assert weights.metadata["extra"]["picture_shape"] == list(shape)
    x = np.random.default_rng(2).uniform(-1, 1, (2, *shape, kind.channels)).astype(np.float32)
    got = np.asarray(jax.jit(encoder.apply)(variables, x), np.float64)
    want = reference(kind, content["state_dict"], x)
    assert got.shape == (2, STYLES, W_DIM)
    assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want)

    generator, variables = weights.part("generator")
    assert generator == GENERATOR
    jax.tree.map(np.testing.assert_array_equal, variables, tiny_generator()[0])
    np.testing.assert_array_equal(weights.variables["w_avg"], content["latent_avg"].numpy())
    if not kind.is_progressive:
        assert "latent_discriminator" not in weights.variables
        return
    assert "optimizer" in report and "global_step" in report
    discriminator, variables = weights.part("latent_discriminator")
    layers = content["discriminator_state_dict"]
    w = want = torch.from_numpy(x[0, 0, :, :W_DIM] if kind.channels == 6 else x[0, 0, :6, 0][None])
    for i in (0, 2, 4, 6):
        want = want if i == 0 else F.leaky_relu(want, 0.2)
        want = F.linear(want, layers[f"mlp.{i}.weight"], layers[f"mlp.{i}.bias"])
    got = jax.jit(discriminator.apply)(variables, w.numpy())
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
            for key, tensor in content[name].items():
                arrays[name, key] = tensor, restored[name][key]
    for place, (tensor, array) in arrays.items():
        assert (tensor.numpy().dtype, tuple(tensor.shape)) == (array.dtype, array.shape), place
        assert tensor.numpy().tobytes() == array.tobytes(), place
    want = dict(content["opts"])
    if kind.family == "interestyle":
        assert isinstance(restored["opts"]["device"], Device)
        want["device"] = str(want["device"])
    assert restored["opts"] == want


def source(kind, **changes):
    """The file's content as the converter's reader gives it, with changes to the outer keys."""
    content = make_checkpoint(kind) | changes

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value.numpy() if isinstance(value, torch.Tensor) else value

    return SourceFile.of("x.pt", plain({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize(
    ("kind", "opts", "family"),
    [
        ("psp", {"output_size": 32}, "psp"),
        ("psp", {"stylegan_size": 32}, "e4e"),
        ("psp", {"encoder_type": "Encoder4Editing", "output_size": 32}, "e4e"),
        ("e4e", {}, "e4e"),
        ("restyle_e4e", {}, "restyle_e4e"),
        ("restyle_psp", {"encoder_type": "BackboneEncoder"}, "restyle_psp"),
        (
            "restyle_psp",
            {"encoder_type": "BackboneEncoder", "apply_mask_loss": False},
            "interestyle",
        ),
        (
            "interestyle",
            {"encoder_type": "BackboneEncoder", "device": Device("cuda:0")},
            "interestyle",
        ),
        ("interestyle", {"encoder_type": "BackboneEncoder", "device": "cuda:0"}, "restyle_psp"),
    ],
)
def test_options_and_discriminator_tell_equal_tensors_apart(kind, opts, family):
    assert recognise([source(KINDS[kind], opts=opts)]) == family


@pytest.mark.parametrize(
    ("kind", "families"), [("psp", "psp, e4e"), ("restyle_psp", "restyle_psp, restyle_e4e")]
)
def test_files_that_nothing_tells_apart_need_a_name(kind, families):
    with pytest.raises(InputError, match=rf"several families \({families}\).*--family"):
        recognise([source(KINDS[kind], opts=None)])
    for family in families.split(", "):
        plan = FAMILIES[family].plan([source(KINDS[kind], opts=None)])
        assert misfits(plan.arrays, plan.sections) == []


@pytest.mark.parametrize(
    ("family", "kind", "message"),
    [
        ("restyle_e4e", "restyle_psp", "opts say encoder_type 'BackboneEncoder', expected 'Progr"),
        ("psp", "e4e", "opts say encoder_type 'Encoder4Editing', expected 'GradualStyleEncoder'"),
        ("psp", "restyle_psp", "has a backbone encoder of 6 channels, expected .* pyramid of 3"),
        ("restyle_psp", "psp", "has a pyramid encoder of 3 channels, expected .* of 6 channels"),
        ("stylegan2", "psp", "no StyleGAN2 generator"),
    ],
)
def test_wrong_family_is_refused(family, kind, message, tmp_path):
    torch.save(make_checkpoint(KINDS[kind]), tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        convert([tmp_path / "x.pt"], tmp_path / "out", family=family)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_every_key_that_does_not_fit_is_listed(tmp_path):
    content = make_checkpoint(KINDS["restyle_psp"])
    state = content["state_dict"]
    for key in ("encoder.styles.7.convs.0.bias", "decoder.convs.0.noise.weight"):
        del state[key]
    state["encoder.extra.weight"] = torch.zeros(2)
    state["other.weight"] = torch.zeros(2)
    state["encoder.styles.2.linear.weight"] = torch.zeros(W_DIM, HEAD_WIDTH + 1)
    content["latent_avg"] = torch.zeros(STYLES - 1, W_DIM)
    content["ema"] = {"x": torch.zeros(1)}
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError) as error:
        convert([tmp_path / "x.pt"], tmp_path / "out")
    for phrase in (
        "7 keys do not fit",
        "missing key state_dict/encoder.styles.7.convs.0.bias",
        "missing key state_dict/decoder.convs.0.noise.weight",
        "unused key state_dict/encoder.extra.weight",
        "unused key state_dict/other.weight",
        "unused key ema/x",
        "state_dict/encoder.styles.2.linear.weight is [6, 6], expected [6, 5]",
        "latent_avg is [7, 6], expected [8, 6]",
    ):
        assert phrase in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("shape", [(W_DIM,), (1, W_DIM), None])
def test_latent_avg_of_one_row_and_none(shape, tmp_path):
    content = make_checkpoint(KINDS["restyle_psp"])
    del content["latent_avg"]
    if shape is not None:
        content["latent_avg"] = torch.arange(float(W_DIM)).reshape(shape)
    torch.save(content, tmp_path / "x.pt")
    convert([tmp_path / "x.pt"], tmp_path / "out")
    weights = load_weights(tmp_path / "out")
    w_avg = weights.variables["w_avg"]
    assert w_avg.shape == (W_DIM,)
    if shape is None:
        samples = weights.metadata["extra"]["w_avg"]["samples"]
        z = np.random.default_rng(3).standard_normal((20_000, W_DIM)).astype(np.float32)
        w = GENERATOR.apply(tiny_generator()[0], z, method="map")
        assert samples >= 10_000
        # Two independent means; five standard errors.
        error = np.sqrt(np.var(w, axis=0) * (1 / len(w) + 1 / samples))
        assert np.all(np.abs(w_avg - np.mean(w, axis=0)) < 5 * error)
    else:
        np.testing.assert_array_equal(w_avg, np.arange(W_DIM))
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


def test_shipped_encoder_comes_back_as_it_was():
    """Two of its stages are equally wide, so shapes alone would give another network."""
    weights = load_weights(resolve_weights("avatar_interestyle"))
    file = SourceFile.of("x.pt", FAMILIES["interestyle"].restore(weights))
    assert recognise([file]) == "interestyle"
    plan = FAMILIES["interestyle"].plan([file])
    for part in ("encoder", "generator"):
        assert plan.modules[part] == weights.part(part)[0]
    assert misfits(plan.arrays, plan.sections) == []
    opts = file.content["opts"]
    for architecture, message in (
        ({"type": "Generator"}, "is a Generator, expected BackboneEncoder"),
        ({"type": "Backbone"}, "network type is 'Backbone'"),
        ({"type": "BackboneEncoder", "widths": "wide"}, "opts/encoder_architecture: "),
    ):
        opts["encoder_architecture"] = architecture
        with pytest.raises(InputError, match=message):
            FAMILIES["interestyle"].plan([file])


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", [*KINDS, "restyle_psp_resnet_256", "restyle_e4e_resnet_512"])
def test_manifests_are_recognised_and_mapped(golden_dir, name, prefix):
    """Every tensor of the full-size files, by its shape alone."""
    kind = KINDS.get(name) or dataclasses.replace(
        KINDS[name.removesuffix("_256").removesuffix("_512")], manifest=name
    )
    manifest = json.loads((golden_dir / f"manifests/{kind.manifest}.json").read_text())
    fir = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16

    def zeros(key, shape, dtype):
        return fir if key.endswith(".kernel") else np.broadcast_to(np.zeros((), dtype), shape)

    content = {
        section: {prefix + key: zeros(key, shape, dtype) for key, shape, dtype in entries}
        for section, entries in manifest["sections"].items()
    }
    content["latent_avg"] = content["latent_avg"][prefix + "latent_avg"]
    opts = kind.options
    if "device" in dict(kind.opts):
        opts["device"] = Device("cuda:0")
    file = SourceFile.of(Path("x.pt"), content | {"opts": opts})
    assert recognise([file]) == kind.family
    plan = FAMILIES[kind.family].plan([file])
    assert misfits(plan.arrays, plan.sections) == []
    encoder, generator = plan.modules["encoder"], plan.modules["generator"]
    assert type(encoder).__name__ == kind.encoder_type
    size = manifest.get("output_size") or manifest["stylegan_size"]
    assert (generator, encoder.num_styles) == (Generator(resolution=size), manifest["n_styles"])
    assert encoder == type(encoder)(
        num_styles=manifest["n_styles"], input_channels=manifest["input_nc"]
    )
    consumed = sum(len(s.entries) for s in plan.sections.values())
    known = sum(len(entries) for entries in manifest["sections"].values())
    left = [k for k in plan.arrays if k.endswith((".kernel", "num_batches_tracked"))]
    assert consumed + len(left) == known


def test_reader_and_family_agree_on_a_device(tmp_path):
    """torch.save keeps a torch.device, which is what marks IntereStyle's files."""
    torch.save({"opts": {"device": torch.device("cpu")}, "x": torch.zeros(1)}, tmp_path / "x.pt")
    assert isinstance(read_source(tmp_path / "x.pt").content["opts"]["device"], Device)
