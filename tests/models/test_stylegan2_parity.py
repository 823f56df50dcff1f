"""StyleGAN2 against the official code: operators with gradients, then the whole networks."""

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.models import modulated_conv, registry
from interestyle_jax.models.discriminator import Discriminator, ResBlock
from interestyle_jax.models.equalized import EqualConv, EqualDense
from interestyle_jax.models.modulated_conv import ModulatedConv
from interestyle_jax.models.resample import blur, downsample, upsample
from interestyle_jax.models.stylegan2 import Generator, StyledConv, ToRGB
from interestyle_jax.weights import load_weights
from tools.convert_weights import conversion
from tools.convert_weights.families import stylegan2_discriminator as table
from tools.convert_weights.tensor_map import apply_map

OPERATOR = {"rel_l2": 5e-6, "rel_max": 1e-5}
NETWORK = {"rel_l2": 1e-5, "rel_max": 3e-5}


def assert_close(got, want, *, rel_l2, rel_max):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= rel_l2 * np.linalg.norm(want)
    assert np.abs(got - want).max() <= rel_max * np.abs(want).max()


def relative(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def hwio(kernel):
    return kernel.transpose(2, 3, 1, 0)


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


def modulated(p, prefix, *, up=False):
    """ModulatedConv's parameters; a transposed kernel is stored flipped here."""
    kernel = hwio(p[prefix + "weight"][0])
    return {
        "kernel": kernel[::-1, ::-1] if up else kernel,
        "modulation": dense(p, prefix + "modulation."),
    }


def dense(p, prefix):
    return {"kernel": p[prefix + "weight"].T, "bias": p[prefix + "bias"]}


def channels_in(p, prefix=""):
    """Channels that a modulated convolution takes."""
    return p[prefix + "weight"].shape[2]


def with_style(module, x, w, *more):
    """A modulated layer as the official one is called, on w."""
    return module(x, module.style(w), *more)


def styled_by(module):
    return lambda v, *arrays: module.apply({"params": v}, *arrays, method=with_style)


def styled(p, prefix, *, up=False):
    return {
        "conv": modulated(p, prefix + "conv.", up=up),
        "noise_strength": p[prefix + "noise.weight"][0],
        "bias": p[prefix + "activate.bias"],
    }


def to_rgb(p, prefix):
    return {"conv": modulated(p, prefix + "conv."), "bias": p[prefix + "bias"].reshape(3)}


def res_block(p, prefix):
    def conv(name):
        return {"kernel": hwio(p[prefix + name + ".weight"])}

    return {
        "conv_0": conv("conv1.0") | {"bias": p[prefix + "conv1.1.bias"]},
        "conv_1": conv("conv2.1") | {"bias": p[prefix + "conv2.2.bias"]},
        "skip": conv("skip.1"),
    }


@pytest.fixture(scope="module")
def operators(golden_dir):
    return np.load(golden_dir / "public" / "stylegan2_ops.npz")


def parts(operators, case):
    groups = {"param": {}, "in": {}, "grad": {}}
    for name in operators.files:
        head, _, rest = name.partition("/")
        group, _, key = rest.partition("/")
        if head == case and group in groups:
            groups[group][key] = operators[name]
    return groups["param"], groups["in"]


CASES = {
    "modconv_plain": lambda p: (ModulatedConv(channels_in(p), 6), modulated(p, "")),
    "modconv_up": lambda p: (ModulatedConv(channels_in(p), 6, up=True), modulated(p, "", up=True)),
    "modconv_up:fused": lambda p: (
        ModulatedConv(channels_in(p), 6, up=True, form="fused"),
        modulated(p, "", up=True),
    ),
    "modconv_plain:blocks": lambda p: (
        ModulatedConv(channels_in(p), 6, form="blocks"),
        modulated(p, ""),
    ),
    "modconv_up:blocks": lambda p: (
        ModulatedConv(channels_in(p), 6, up=True, form="blocks"),
        modulated(p, "", up=True),
    ),
    "modconv_1x1_nodemod": lambda p: (
        ModulatedConv(channels_in(p), 3, kernel_size=1, demodulate=False),
        modulated(p, ""),
    ),
}


def check(operators, case, apply, params):
    """Output, and gradients with respect to the inputs for the stored cotangent."""
    name = case.partition(":")[0]
    _, inputs = parts(operators, name)
    arrays = [nhwc(a) if a.ndim == 4 else a for a in inputs.values()]
    out = operators[f"{name}/out"]
    cotangent = operators[f"{name}/ct"]
    if out.ndim == 4:
        out, cotangent = nhwc(out), nhwc(cotangent)
    assert_close(apply(params, *arrays), out, **OPERATOR)

    gradients = jax.grad(lambda *a: (apply(params, *a) * cotangent).sum(), range(len(arrays)))
    for key, got in zip(inputs, gradients(*arrays), strict=True):
        found = [n for n in operators.files if n.startswith(f"{name}/grad") and n.endswith(key)]
        assert found, f"no golden gradient of {key} in {name}"
        want = operators[found[0]]
        assert_close(got, nhwc(want) if want.ndim == 4 else want, **OPERATOR)


@pytest.mark.parametrize("case", CASES)
def test_modulated_convolution(operators, case, monkeypatch):
    monkeypatch.setattr(modulated_conv, "SMALL", 0)
    module, params = CASES[case](parts(operators, case.partition(":")[0])[0])
    check(operators, case, styled_by(module), params)


def test_kernel_gradient_of_the_upsampling_convolution(operators):
    p, inputs = parts(operators, "modconv_up")
    module, params = CASES["modconv_up"](p)
    x, w = nhwc(inputs["x"]), inputs["style"]
    cotangent = nhwc(operators["modconv_up/ct"])
    got = jax.grad(lambda v: (styled_by(module)(v, x, w) * cotangent).sum())(params)
    want = operators["modconv_up/grad_param/weight"]
    assert_close(got["kernel"], hwio(want[0])[::-1, ::-1], **OPERATOR)


@pytest.mark.parametrize("case", ["styledconv", "styledconv_up"])
def test_styled_convolution_with_given_noise(operators, case):
    p, inputs = parts(operators, case)
    up = case.endswith("up")
    module = StyledConv(channels_in(p, "conv."), 6, up=up)
    variables = {
        "params": styled(p, "", up=up),
        "noise": {"noise": nhwc(inputs["noise"])},
    }
    got = module.apply(variables, nhwc(inputs["x"]), inputs["style"], "const", method=with_style)
    assert_close(got, nhwc(operators[f"{case}/out"]), **OPERATOR)


def test_to_rgb(operators):
    p, _ = parts(operators, "torgb_skip")
    module = ToRGB(channels_in(p, "conv."))
    check(operators, "torgb_skip", styled_by(module), to_rgb(p, ""))
    p, _ = parts(operators, "torgb_first")
    check(
        operators,
        "torgb_first",
        lambda v, x, w: styled_by(module)(v, x, w, None),
        to_rgb(p, ""),
    )


def test_equalized_layers(operators):
    p, _ = parts(operators, "equal_linear")
    check(
        operators, "equal_linear", lambda v, x: EqualDense(10).apply({"params": v}, x), dense(p, "")
    )
    p, _ = parts(operators, "equal_linear_lrmul_act")
    module = EqualDense(10, 0.01, activation=True)
    check(
        operators,
        "equal_linear_lrmul_act",
        lambda v, x: module.apply({"params": v}, x),
        dense(p, ""),
    )


def test_res_block(operators):
    p, _ = parts(operators, "resblock")
    module = ResBlock(6)
    check(operators, "resblock", lambda v, x: module.apply({"params": v}, x), res_block(p, ""))


def test_resampling(operators):
    check(operators, "blur_pad11", lambda _, x: blur(x, padding=(1, 1), gain=2.0), None)
    check(operators, "blur_pad22", lambda _, x: blur(x, padding=(2, 2)), None)
    check(operators, "upsample", lambda _, x: upsample(x), None)
    check(operators, "downsample", lambda _, x: downsample(x), None)


def test_equal_conv_is_the_scaled_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    module = EqualConv(4, 3)
    params = module.init(jax.random.key(1), x)["params"]
    want = jax.lax.conv_general_dilated(
        x,
        params["kernel"] / np.sqrt(27),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert_close(module.apply({"params": params}, x), want, **OPERATOR)


def sample(goldenfill, golden, name, array):
    """Values of a large [B, H, W, C] array, and the golden ones at the same places."""
    want = golden[f"{name}.sub"]
    flat = np.asarray(array).transpose(0, 3, 1, 2).reshape(-1)
    return flat[goldenfill.subset_index(flat.size, want.size)], want


def rosinality(fill):
    """The whole file that his converter and trainer write."""
    latent_avg = fill("latent_avg")["latent_avg"]
    return {"g_ema": fill("g_ema"), "d": fill("d"), "latent_avg": latent_avg}


@pytest.mark.slow
def test_mapping_and_mixing_are_the_official_ones(golden_case, golden_weights, goldenfill):
    golden, inputs = golden_case("stylegan2_mapping")
    model = ij.load(golden_weights("rosinality_256", {"g.pt": rosinality}))
    z, z_mean = inputs.values()
    w = model.map(z)
    print(f"stylegan2 mapping: {relative(w, golden['w_f64']):.1e}")
    assert_close(w, golden["w_f64"], **NETWORK)
    assert_close(model.map(z, truncation_psi=0.5), golden["wplus_trunc0.5"], **NETWORK)
    assert_close(model.map(z_mean).mean(axis=0), golden["mean_w64_f64"], **NETWORK)
    first, second = model.map(z, truncation_psi=0.7)
    mixed = np.stack([first] * 5 + [second] * 9)[None]
    assert_close(mixed, golden["mix_latent_f64"], **NETWORK)
    got, want = sample(goldenfill, golden, "mix_image", model.synthesize(mixed))
    print(f"stylegan2 mixing: {relative(got, want):.1e}")
    assert_close(got, want, **NETWORK)


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [256, 1024])
def test_synthesis_is_the_official_one(golden_case, golden_weights, goldenfill, resolution):
    golden, inputs = golden_case(f"stylegan2_synth_{resolution}")
    (w_plus,) = inputs.values()
    weights = golden_weights(f"rosinality_{resolution}", {"g.pt": rosinality})
    generator, variables = load_weights(weights).part("generator")
    assert generator == Generator(resolution=resolution)
    draw = jax.jit(
        lambda v, w: generator.apply(v, w, "const", return_skips=True, method="synthesize")
    )
    skips = draw(variables, 0.5 * w_plus)
    for skip in skips:
        size = skip.shape[1]
        if f"skip_{size}" in golden:
            assert_close(skip.transpose(0, 3, 1, 2), golden[f"skip_{size}"], **NETWORK)
        elif f"skip_{size}.sub" in golden:
            assert_close(*sample(goldenfill, golden, f"skip_{size}", skip), **NETWORK)
    got, want = sample(goldenfill, golden, "image", skips[-1])
    print(f"stylegan2 {resolution}: {relative(got, want):.1e}")
    assert_close(got, want, **NETWORK)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["disc32", "disc256"])
def test_discriminator_is_the_official_one(
    golden_case, golden_weights, golden_manifest, goldenfill, case
):
    golden, inputs = golden_case("stylegan2_discriminator")
    images = dict(zip(["disc32", "disc256"], inputs.values(), strict=True))[case]
    if case == "disc256":
        weights = golden_weights("rosinality_256", {"g.pt": rosinality})
        module, variables = load_weights(weights).part("discriminator")
        assert module == Discriminator(256)
    else:
        # No family has a discriminator alone: the converter's table without its file.
        arrays = goldenfill.fill_all(golden_manifest("rosinality_disc_32")["d"])
        module = table.read_architecture(arrays, "golden")
        shapes = conversion.shapes(registry.describe(module))
        entries = table.entries(module.resolution)
        variables = apply_map(
            arrays, entries, shapes, where="golden", ignore=r".*\.kernel"
        ).variables
    judge = jax.jit(lambda v, x: (module.apply(v, x, return_features=True), module.apply(v, x)))
    features, got = judge(variables, images)
    assert_close(*sample(goldenfill, golden, f"{case}/convs", features), **NETWORK)
    want = golden[f"{case}/logits"][:, 0]
    print(f"stylegan2 discriminator {module.resolution}: {relative(got, want):.1e}")
    assert_close(got, want, **NETWORK)
    if case == "disc32":
        pair = golden[f"{case}/logits_batch2"][:, 0]
        assert_close(judge(variables, images[:2])[1], pair, **NETWORK)
