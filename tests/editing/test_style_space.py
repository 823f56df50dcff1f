"""S space: styles and synthesis from them are `synthesize`; flat indices as StyleCLIP has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.editing.style_space import (
    counted_layers,
    flat_index,
    join_styles,
    layer_and_channel,
    num_channels,
    split_styles,
)
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator

TINY = Generator(resolution=32, w_dim=8, z_dim=8, mapping_depth=1, channel_base=128, channel_max=16)
FFHQ = Generator().style_layers


@pytest.fixture(scope="module")
def tiny():
    variables = registry.init(jax.random.key(0), TINY)
    # Fresh modulations are 1 + noise of the same size; strengths of noise are 0.
    params = jax.tree.map(lambda x: x + 0.1 if x.ndim == 0 else x, variables["params"])
    return {**variables, "params": params}


def two_steps(module):
    def draw(variables, w_plus, noise):
        styles = jax.jit(lambda v, w: module.apply(v, w, method="styles"))(variables, w_plus)
        return jax.jit(lambda v, s: module.apply(v, s, noise, method="synthesize_from_styles"))(
            variables, styles
        )

    return draw


@pytest.mark.parametrize("noise", ["const", "none", "key"])
def test_synthesis_from_styles_is_synthesis_bit_for_bit(tiny, noise):
    noise = jax.random.key(3) if noise == "key" else noise
    w_plus = jax.random.normal(jax.random.key(1), (2, TINY.num_styles, 8))
    whole = jax.jit(lambda v, w: TINY.apply(v, w, noise, method="synthesize"))(tiny, w_plus)
    np.testing.assert_array_equal(two_steps(TINY)(tiny, w_plus, noise), whole)


def test_gradients_through_styles_are_those_of_synthesis(tiny):
    """By hand: the pull-back of the image to the styles, then of the styles to `w_plus`."""
    w_plus = jax.random.normal(jax.random.key(1), (2, TINY.num_styles, 8))
    cotangent = jax.random.normal(jax.random.key(2), (2, 32, 32, 3))

    def apply(method, x, *more):
        return TINY.apply(tiny, x, *more, method=method)

    @jax.jit
    def whole(w):
        return jax.vjp(lambda w: apply("synthesize", w, "const"), w)[1](cotangent)[0]

    @jax.jit
    def parts(w):
        styles, to_w = jax.vjp(lambda w: apply("styles", w), w)
        _, to_styles = jax.vjp(lambda s: apply("synthesize_from_styles", s, "const"), styles)
        return to_w(to_styles(cotangent)[0])[0]

    want = np.asarray(whole(w_plus))
    np.testing.assert_allclose(parts(w_plus), want, rtol=0, atol=1e-6 * np.abs(want).max())


def test_shipped_generator_draws_the_same_from_styles():
    model = ij.load("avatar_generator")
    w_plus = model.mean_latent(2) + jax.random.normal(jax.random.key(0), (2, 1, 512))
    styles = model.styles(w_plus)
    assert [style.shape[1] for style in styles] == [layer.channels for layer in model.style_layers]
    np.testing.assert_array_equal(model.synthesize_from_styles(styles), model.synthesize(w_plus))
    changed = [*styles[:-1], styles[-1] + 1]
    assert not np.allclose(model.synthesize_from_styles(changed), model.synthesize(w_plus))


def test_every_layer_takes_the_row_it_names(tiny):
    w_plus = jnp.zeros((1, TINY.num_styles, 8))
    styles = TINY.apply(tiny, w_plus, method="styles")
    for row in range(TINY.num_styles):
        moved = TINY.apply(tiny, w_plus.at[0, row].add(1.0), method="styles")
        changed = [not np.array_equal(a, b) for a, b in zip(styles, moved, strict=True)]
        assert changed == [layer.row == row for layer in TINY.style_layers]


def test_layers_are_named_as_their_parameters(tiny):
    for layer in TINY.style_layers:
        kernel = tiny["params"][layer.name]["conv"]["kernel"]
        assert kernel.shape[2] == layer.channels
        assert (kernel.shape[3] == 3) == layer.is_rgb == layer.name.startswith("rgb")


def test_layers_at_1024_are_the_official_ones():
    """StyleSpace's and StyleCLIP's counts (golden/NOTES-graphonomy-styleclip.md)."""
    assert len(FFHQ) == 26 and len(counted_layers(FFHQ, with_rgb=False)) == 17
    assert num_channels(FFHQ) == 9088 and num_channels(FFHQ, with_rgb=False) == 6048
    assert [i for i, layer in enumerate(FFHQ) if layer.is_rgb] == list(range(1, 26, 3))
    assert [layer.row for layer in FFHQ[:8]] == [0, 1, 1, 2, 3, 3, 4, 5]
    convolutions = [FFHQ[i].channels for i in counted_layers(FFHQ, with_rgb=False)]
    assert convolutions == [512] * 10 + [256] * 2 + [128] * 2 + [64] * 2 + [32]
    at_256 = Generator(resolution=256).style_layers
    assert (num_channels(at_256), num_channels(at_256, with_rgb=False)) == (8704, 5760)


@pytest.mark.parametrize("with_rgb", [True, False])
def test_flat_indices_and_back(with_rgb):
    layers = TINY.style_layers
    pairs = [
        (i, channel)
        for i in counted_layers(layers, with_rgb=with_rgb)
        for channel in range(layers[i].channels)
    ]
    places = [flat_index(layers, *pair, with_rgb=with_rgb) for pair in pairs]
    assert places == list(range(num_channels(layers, with_rgb=with_rgb)))
    assert [layer_and_channel(layers, i, with_rgb=with_rgb) for i in places] == pairs
    # StyleSpace's glasses channel (3, 288): behind conv1 and the first upsampling convolution.
    assert flat_index(FFHQ, 3, 288, with_rgb=False) == 1024 + 288


def test_flat_styles_and_back(tiny):
    w_plus = jax.random.normal(jax.random.key(1), (2, TINY.num_styles, 8))
    styles, layers = TINY.apply(tiny, w_plus, method="styles"), TINY.style_layers
    for got, want in zip(split_styles(join_styles(styles, layers), layers), styles, strict=True):
        np.testing.assert_array_equal(got, want)
    flat = join_styles(styles, layers, with_rgb=False)
    np.testing.assert_array_equal(
        flat[:, flat_index(layers, 3, 5, with_rgb=False)], styles[3][:, 5]
    )
    for got, want, layer in zip(
        split_styles(flat, layers, with_rgb=False), styles, layers, strict=True
    ):
        np.testing.assert_array_equal(got, 0 * want if layer.is_rgb else want)


def test_wrong_places_and_styles_are_refused(tiny):
    with pytest.raises(InputError, match="layer 26: expected 0 to 25"):
        flat_index(FFHQ, 26, 0)
    with pytest.raises(InputError, match="channel 512 of layer 0: expected 0 to 511"):
        flat_index(FFHQ, 0, 512)
    with pytest.raises(InputError, match="layer 1: is a ToRGB"):
        flat_index(FFHQ, 1, 0, with_rgb=False)
    with pytest.raises(InputError, match="channel 9088: expected 0 to 9087"):
        layer_and_channel(FFHQ, 9088)
    with pytest.raises(InputError, match="styles: 5 channels, expected 9088"):
        split_styles(jnp.zeros((1, 5)), FFHQ)
    with pytest.raises(ValueError, match=r"styles: expected \[B, C\]"):
        TINY.apply(tiny, (jnp.zeros((1, 16)),), "const", method="synthesize_from_styles")
    model = ij.load("avatar_generator")
    with pytest.raises(InputError, match="styles: 1 layers, expected 14"):
        model.synthesize_from_styles([jnp.zeros((1, 128))])
    wrong = [jnp.zeros((1, 3)) for _ in model.style_layers]
    with pytest.raises(InputError, match=r"layer 0 \(conv_4\) has shape \(1, 3\), expected"):
        model.synthesize_from_styles(wrong)


def test_fingerprint_is_of_the_synthesis_alone():
    generator, inverter = ij.load("avatar_generator"), ij.load("avatar_interestyle")
    assert generator.generator_fingerprint == inverter.generator_fingerprint
    params = inverter.variables["generator"]["params"]
    moved = {**inverter.variables["generator"], "params": {**params, "input": params["input"] + 1}}
    other = ij.inversion.inverter.weights.generator_fingerprint(moved)
    assert other != inverter.generator_fingerprint and len(other) == 16
