"""Pyramid, ResNet and progressive encoders at tiny size, and their parameters at official size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.corner_resize import resize_corners
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder, StyleHeads
from interestyle_jax.models.ir_se import IRTrunk
from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.progressive import (
    Encoder4Editing,
    ProgressiveBackboneEncoder,
    ResNetProgressiveBackboneEncoder,
    progressive_rows,
)
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.models.resnet import BasicBlock, ResNetTrunk
from interestyle_jax.training.gan_losses import (
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from tools.convert_weights.tensor_map import apply_map
from tools.convert_weights.torch_modules import dense

TINY = {
    "num_styles": 8,
    "input_size": 32,
    "units": (1, 1, 1),
    "widths": (4, 4, 6, 8),
    "head_width": 5,
    "w_dim": 7,
}


def draw(shapes, seed=0):
    """Variables with no entry at its initial value, so that none can be forgotten unnoticed."""
    rng = np.random.default_rng(seed)

    def one(path, spec):
        last = path[-1].key
        if len(spec.shape) == 1:
            centre = 1.0 if last in ("scale", "var", "slope") else 0.0
            return (centre + rng.uniform(-0.3, 0.3, spec.shape)).astype(np.float32)
        spread = 1.0 if last == "dense_kernel" else 1 / np.sqrt(np.prod(spec.shape[:-1]))
        return rng.normal(0, spread, spec.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def draw_for(module, *inputs):
    return draw(jax.eval_shape(module.init, jax.random.key(0), *inputs))


def image(*shape):
    return np.random.default_rng(shape).uniform(-1, 1, shape).astype(np.float32)


def convolve(x, kernel, stride):
    """Definition of a convolution with (k - 1) / 2 zeros around; x [B, H, W, C], kernel HWIO."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((x.shape[0], rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.einsum("bhwc,hwco->bo", window, kernel)
    return out


def normalise(x, variables, name):
    p, s = variables["params"][name], variables["batch_stats"][name]
    return (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]


@pytest.mark.parametrize(("features", "stride"), [(6, 1), (6, 2), (4, 1)])
def test_basic_block_is_its_definition(features, stride):
    x = image(2, 5, 4, 6)
    block = BasicBlock(features, stride)
    v = draw_for(block, x)
    p = v["params"]
    y = normalise(convolve(x, p["conv_1"]["kernel"], stride), v, "norm_1")
    y = normalise(convolve(np.maximum(y, 0), p["conv_2"]["kernel"], 1), v, "norm_2")
    shortcut = x
    if (features, stride) != (6, 1):
        shortcut = convolve(x, p["shortcut_conv"]["kernel"], stride)
        shortcut = normalise(shortcut, v, "shortcut_norm")
    assert ("shortcut_conv" in p) == ((features, stride) != (6, 1))
    want = np.maximum(y + shortcut, 0)
    np.testing.assert_allclose(jax.jit(block.apply)(v, x), want, rtol=1e-4, atol=1e-5)


def test_resnet_stem_halves_once_and_has_a_prelu():
    x = image(1, 8, 6, 3)
    trunk = ResNetTrunk((1, 1), (4, 4, 6))
    v = draw_for(trunk, x)
    maps = jax.jit(trunk.apply)(v, x)
    assert [m.shape for m in maps] == [(1, 4, 3, 4), (1, 2, 2, 6)]
    stem = normalise(convolve(x, v["params"]["stem_conv"]["kernel"], 2), v, "stem_norm")
    stem = np.where(stem >= 0, stem, v["params"]["stem_prelu"]["slope"] * stem)
    assert stem.min() < 0
    block = {c: v[c]["block_0"] for c in v}
    want = jax.jit(BasicBlock(4).apply)(block, stem.astype(np.float32))
    np.testing.assert_allclose(maps[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "target"), [((2, 2), (4, 4)), ((3, 4), (6, 8)), ((1, 2), (2, 3))])
def test_upsampling_maps_corners_to_corners(size, target):
    x = image(2, *size, 3)
    want = np.zeros((2, *target, 3))
    for i in range(target[0]):
        for j in range(target[1]):
            a = i * (size[0] - 1) / (target[0] - 1)
            b = j * (size[1] - 1) / (target[1] - 1)
            r, c = min(int(a), size[0] - 1), min(int(b), size[1] - 1)
            r1, c1 = min(r + 1, size[0] - 1), min(c + 1, size[1] - 1)
            top = (1 - (b - c)) * x[:, r, c] + (b - c) * x[:, r, c1]
            bottom = (1 - (b - c)) * x[:, r1, c] + (b - c) * x[:, r1, c1]
            want[:, i, j] = (1 - (a - r)) * top + (a - r) * bottom
    got = resize_corners(jnp.asarray(x), *target)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[:, 0, 0], x[:, 0, 0])
    np.testing.assert_allclose(got[:, -1, -1], x[:, -1, -1], rtol=1e-6)


def test_rows_of_a_pyramid_read_their_scales():
    encoder = GradualStyleEncoder(**TINY)
    x = image(2, 32, 32, 3)
    v = draw_for(encoder, x)

    @jax.jit
    def composed(v, x):
        trunk = {c: v[c]["trunk"] for c in v}
        *_, fine, middle, coarse = IRTrunk(TINY["units"], TINY["widths"]).apply(trunk, x)

        def lateral(x, name):
            p = v["params"][name]
            return x @ p["kernel"][0, 0] + p["bias"]

        middle = resize_corners(coarse, 8, 8) + lateral(middle, "lateral_middle")
        fine = resize_corners(middle, 16, 16) + lateral(fine, "lateral_fine")
        scales = [("coarse", coarse, 3, 2), ("middle", middle, 4, 3), ("fine", fine, 1, 4)]
        rows = [
            StyleHeads(count, depth, 5, 7).apply({"params": v["params"][name]}, features)
            for name, features, count, depth in scales
        ]
        return jnp.concatenate(rows, 1)

    got = jax.jit(encoder.apply)(v, x)
    np.testing.assert_allclose(got, composed(v, x), rtol=1e-4, atol=1e-4)


def test_progressive_rows_add_one_change_a_row():
    heads = image(2, 4, 3)
    w, (a, b, c) = heads[:, 0], (heads[:, 0] + heads[:, i] for i in (1, 2, 3))
    for stage, want in {
        0: (w, w, w, w),
        1: (w, a, w, w),
        2: (w, a, b, w),
        3: (w, a, b, c),
        18: (w, a, b, c),
        None: (w, a, b, c),
    }.items():
        np.testing.assert_array_equal(progressive_rows(heads, stage), np.stack(want, 1))
    with pytest.raises(ValueError, match="stage: expected 0 or more, or None, got -1"):
        progressive_rows(heads, -1)


@pytest.mark.parametrize(
    ("plain", "progressive"),
    [
        (BackboneEncoder, ProgressiveBackboneEncoder),
        (ResNetBackboneEncoder, ResNetProgressiveBackboneEncoder),
        (GradualStyleEncoder, Encoder4Editing),
    ],
)
def test_progressive_encoder_is_the_plain_one_with_stages(plain, progressive):
    channels = plain.input_channels
    x = image(1, 24 if plain is ResNetBackboneEncoder else 32, 32, channels)
    encoders = plain(**TINY), progressive(**TINY)
    v = draw_for(encoders[0], x)

    @jax.jit
    def both(v, x):
        return encoders[0].apply(v, x), encoders[1].apply(v, x, train=False, stage=2)

    rows, got = both(v, x)
    assert got.shape == (1, 8, 7)
    np.testing.assert_allclose(got, progressive_rows(rows, 2), rtol=1e-4, atol=1e-5)


# Sums over the trainable encoder entries of golden/manifests/NAME.json.
@pytest.mark.parametrize(
    ("encoder", "count"),
    [
        (GradualStyleEncoder(), 267_136_704),  # psp_ffhq
        (Encoder4Editing(), 267_136_704),  # e4e_ffhq
        (ProgressiveBackboneEncoder(), 205_585_792),  # restyle_e4e_ffhq
        (ResNetBackboneEncoder(num_styles=14), 157_120_576),  # restyle_psp_resnet_256
        (ResNetProgressiveBackboneEncoder(num_styles=16), 176_524_352),  # restyle_e4e_resnet_512
        (LatentDiscriminator(), 788_481),  # e4e_ffhq
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, int) else "",
)
def test_parameter_count_at_official_size(encoder, count):
    params = registry.variable_shapes(registry.describe(encoder))["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == count


def test_latent_discriminator_is_the_official_one(golden_manifest, goldenfill, golden_case):
    numbers, inputs = golden_case("losses")
    arrays = goldenfill.fill_all(golden_manifest("e4e_ffhq")["discriminator_state_dict"])
    entries = [e for i in range(4) for e in dense(f"mlp.{2 * i}", f"dense_{i}")]
    shapes = registry.variable_shapes(registry.describe(LatentDiscriminator()))["params"]
    expected = {
        f"params/{layer}/{leaf}": x.shape for layer, p in shapes.items() for leaf, x in p.items()
    }
    variables = apply_map(arrays, entries, expected, where="golden").variables
    discriminate = jax.jit(LatentDiscriminator().apply)
    logits = {}
    for name in ("real", "fake"):
        got = logits[name] = discriminate(variables, inputs[f"input:loss:{name}_w"])
        want = numbers[f"latent_disc_{name}_logits_f64"][:, 0]
        assert got.shape == want.shape
        assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want)

    # The losses are those of images; e4e judges the rows that its stage 5 has trained.
    active = inputs["input:loss:latent"][:, :6].reshape(-1, 512)
    r1 = jax.jit(lambda w: r1_penalty(lambda w: LatentDiscriminator().apply(variables, w), w))
    found = {
        "latent_disc_loss": discriminator_loss(logits["real"], logits["fake"]),
        "latent_disc_r1": r1(inputs["input:loss:real_w"]),
        "e4e_adversarial_stage5": generator_loss(discriminate(variables, active)),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, numbers[f"{name}_f64"], rtol=2e-5, err_msg=name)
