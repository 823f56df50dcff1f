"""Files as other people save them: parts missing, other types, networks that are not read."""

import pickle

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.encoders import ResNetBackboneEncoder
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert, unsupported
from tools.convert_weights.encoder_table import encoder_entries, read_encoder
from tools.convert_weights.source_file import SourceFile
from tools.convert_weights.tensor_map import restore_map
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
safetensors = pytest.importorskip(
    "safetensors.torch", reason="safetensors is not installed (extra [convert])"
)


@pytest.fixture
def inverter(official_inverters):
    """The content of a tiny ReStyle file."""
    return official_inverters.make_checkpoint(official_inverters.kinds["restyle_psp"])


@pytest.fixture
def stylegan2(inverter):
    """The content of rosinality's file with the generator inside."""
    state = inverter["state_dict"]
    own = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    return {"g_ema": own, "latent_avg": inverter["latent_avg"][0]}


def write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def drawn_noise(directory):
    weights = load_weights(directory)
    assert weights.metadata["extra"]["noise"]["seed"] == 0
    return jax.tree.leaves(weights.variables["generator"]["noise"])


def test_missing_noise_buffers_are_drawn_from_a_fixed_seed(stylegan2, inverter, tmp_path):
    state = stylegan2["g_ema"]
    stylegan2["g_ema"] = {k: v for k, v in state.items() if not k.startswith("noises.")}
    inverter["state_dict"] = {k: v for k, v in inverter["state_dict"].items() if "noises." not in k}
    for name, content in (("g", stylegan2), ("psp", inverter)):
        report = convert([write(tmp_path / f"{name}.ckpt", content)], tmp_path / name)
        assert "note: no noise buffers in the source, drawn (seed 0)" in report
    noise = drawn_noise(tmp_path / "g")
    shapes = sorted(v.shape[2] for k, v in state.items() if k.startswith("noises."))
    assert sorted(x.shape[1] for x in noise) == shapes
    values = np.concatenate([x.ravel() for x in noise])
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05
    # The same numbers for every file of this size.
    for a, b in zip(noise, drawn_noise(tmp_path / "psp"), strict=True):
        np.testing.assert_array_equal(a, b)
    # The official code asks for the buffers.
    to_pytorch(tmp_path / "g", tmp_path / "g.pt")
    assert torch.load(tmp_path / "g.pt", weights_only=True)["g_ema"].keys() == state.keys()
    # A file that has some of them is damaged.
    del state["noises.noise_0"]
    with pytest.raises(InputError, match="missing key g_ema/noises.noise_0"):
        convert([write(tmp_path / "h.ckpt", stylegan2 | {"g_ema": state})], tmp_path / "h")


@pytest.mark.parametrize("rows", [(1,), (1, 8)])
def test_mean_latents_with_an_axis_of_one(stylegan2, inverter, tmp_path, rows):
    latent = inverter["latent_avg"][: rows[-1]].reshape(*rows, -1)
    for name, content in (("g", stylegan2), ("psp", inverter)):
        path = write(tmp_path / f"{name}.ckpt", content | {"latent_avg": latent})
        convert([path], tmp_path / name)
        w_avg = load_weights(tmp_path / name).variables["w_avg"]
        np.testing.assert_array_equal(w_avg, latent.reshape(rows[-1], -1).squeeze())
        to_pytorch(tmp_path / name, tmp_path / f"{name}.pt")
        back = torch.load(tmp_path / f"{name}.pt", weights_only=True)["latent_avg"]
        assert back.shape == latent.shape
        np.testing.assert_array_equal(back, latent)


def test_other_mean_latents_are_refused(stylegan2, tmp_path):
    path = write(tmp_path / "x.ckpt", stylegan2 | {"latent_avg": np.zeros((2, 6))})
    with pytest.raises(InputError, match=r"latent_avg is \[2, 6\], expected \[8, 6\]"):
        convert([path], tmp_path / "out")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_float16_source_warns_of_nothing(stylegan2, tmp_path, dtype):
    """Warnings are errors here."""
    half = {k: torch.from_numpy(np.array(v)).half() for k, v in stylegan2["g_ema"].items()}
    torch.save({"g_ema": half}, tmp_path / "g.pt")
    report = convert([tmp_path / "g.pt"], tmp_path / "out", dtype=dtype)
    assert "the source is float16" in report
    leaf = load_weights(tmp_path / "out").variables["generator"]["params"]["input"]
    want = half["input.input"].to(getattr(torch, dtype)).float().permute(0, 2, 3, 1)
    np.testing.assert_array_equal(leaf, want)


def test_safetensors_of_a_whole_checkpoint(inverter, tmp_path):
    flat = {f"state_dict.{k}": torch.tensor(v) for k, v in inverter["state_dict"].items()}
    flat["latent_avg"] = torch.tensor(inverter["latent_avg"])
    options = {"opts": '{"encoder_type": "BackboneEncoder"}'}
    safetensors.save_file(flat, tmp_path / "x.safetensors", metadata=options)
    write(tmp_path / "x.ckpt", inverter)
    for name in ("x.safetensors", "x.ckpt"):
        assert "family restyle_psp" in convert([tmp_path / name], tmp_path / f"{name}_out")
    model = ij.load(tmp_path / "x.safetensors_out")
    want = load_weights(tmp_path / "x.ckpt_out").variables
    jax.tree.map(np.testing.assert_array_equal, model.variables, want)


def wide(key, channels):
    """Puts another number of input channels into a kernel."""

    def change(content):
        old = content["state_dict"][key]
        content["state_dict"][key] = np.zeros((old.shape[0], channels, *old.shape[2:]))

    return change


def without_heads(content):
    content["state_dict"] = {
        k: v for k, v in content["state_dict"].items() if "encoder.styles" not in k
    } | {"encoder.linear.weight": np.zeros((6, 6))}
    content["opts"]["encoder_type"] = "WEncoder"


def generator(**changed):
    return lambda content: content["state_dict"].update(
        {"decoder." + k.replace("__", "."): np.zeros(shape) for k, shape in changed.items()}
    )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (wide("encoder.input_layer.0.weight", 1), r"reads 1 channels \(sketches\), expected 3"),
        (wide("encoder.input_layer.0.weight", 19), r"reads 19 channels \(label maps\), expected 3"),
        (without_heads, r"one latent in W, not a row for every style \(WEncoder\)"),
        (generator(to_rgb1__bias=(1, 1, 1, 1)), r"generator of 1 channels \(grey\), expected 3"),
        (generator(input__input=(1, 8, 4, 8)), r"not square \(a map of 4 x 8\), expected square"),
        (generator(noises__noise_3=(1, 1, 16, 8)), r"not square \(a map of 16 x 8\)"),
        (generator(embed__weight=(6, 10)), r"conditional generator \(embed.weight\), expected"),
    ],
)
@pytest.mark.parametrize("family", ["auto", "restyle_psp"])
def test_networks_that_are_not_read_are_told_in_words(
    inverter, tmp_path, break_it, message, family
):
    break_it(inverter)
    path = write(tmp_path / "x.ckpt", inverter)
    with pytest.raises(InputError, match=f"x.ckpt: .*{message}"):
        convert([path], tmp_path / "out", family=family)
    assert not (tmp_path / "out").exists()


def dotted(**shapes):
    return {k.replace("__", "."): np.zeros(shape) for k, shape in shapes.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dotted(input__input=(1, 8, 4, 4)), "bare state dict of a StyleGAN2 gen.*{'g_ema': state"),
        (dotted(synthesis__b4__const=(8, 4, 4)), "bare state dict of .*ada.*{'G_ema': state_dict}"),
        (dotted(encoder__styles__0__linear__weight=(6, 6)), "{'state_dict': state_dict}.*"),
        (dotted(styles__0__linear__weight=(6, 6)), "bare state dict of an encoder, expected enc"),
        (
            dotted(convs__0__0__weight=(8, 3, 1, 1), final_linear__0__weight=(8, 128)),
            "bare state dict of a StyleGAN2 discriminator, expected it under the key 'd'",
        ),
        ({"G_ema": dotted(synthesis__L0_36_512__weight=(8, 8))}, "is a StyleGAN3 network"),
        (
            {"G_ema": dotted(synthesis__b4__const=(8, 4, 4), synthesis__b4__torgb__bias=(1,))},
            r"generator of 1 channels \(grey\)",
        ),
        (
            {"G_ema": dotted(synthesis__b4__const=(8, 4, 4), mapping__embed__weight=(8, 2))},
            r"conditional generator \(mapping/embed/weight\)",
        ),
    ],
)
@pytest.mark.parametrize("family", ["auto", "stylegan2"])
def test_networks_without_their_key_are_told_in_words(tmp_path, content, message, family):
    path = write(tmp_path / "x.ckpt", content)
    with pytest.raises(InputError, match=f"x.ckpt: .*{message}"):
        convert([path], tmp_path / "out", family=family)


def test_what_is_read_is_not_called_unsupported(official_inverters, stylegan2):
    for kind in official_inverters.kinds.values():
        unsupported.check([SourceFile.of("x", official_inverters.make_checkpoint(kind))])
    unsupported.check([SourceFile.of("x", stylegan2)])


def zeros_of(module):
    """An encoder's state dict."""
    shapes = registry.variable_shapes(registry.describe(module))
    variables = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    return restore_map(variables, encoder_entries(module))


@pytest.mark.parametrize("widths", [(4, 8, 8, 8), (4, 8, 8, 12), (4, 4, 8, 12, 12)])
def test_pyramids_whose_stages_cannot_be_told_apart(inverter, official_inverters, tmp_path, widths):
    module = GradualStyleEncoder(
        8, 3, 32, (1,) * (len(widths) - 1), widths, 5, 6, middle_start=3, fine_start=7
    )
    content = official_inverters.make_checkpoint(official_inverters.kinds["psp"])
    decoder = {k: v for k, v in content["state_dict"].items() if k.startswith("decoder.")}
    content["state_dict"] = decoder | {f"encoder.{k}": v for k, v in zeros_of(module).items()}
    path = write(tmp_path / "x.ckpt", content)
    with pytest.raises(InputError, match="stages of one width beside each other cannot be told"):
        convert([path], tmp_path / "out")
    # Options can say it.
    content["opts"]["encoder_architecture"] = registry.describe(module)
    convert([write(path, content)], tmp_path / "out")
    assert load_weights(tmp_path / "out").part("encoder")[0] == module


def test_resnet_stages_of_one_width_are_told_by_their_shortcuts():
    module = ResNetBackboneEncoder(
        num_styles=8, input_size=32, units=(1, 2, 1), widths=(4, 8, 8, 8), head_width=5, w_dim=6
    )
    assert read_encoder(zeros_of(module), ResNetBackboneEncoder, "x") == module
