"""StyleGAN2's shape, size, noise and truncation; equal forms; nothing gathered when sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from interestyle_jax.models import backend, registry, stylegan2
from interestyle_jax.models.discriminator import Discriminator, minibatch_stddev
from interestyle_jax.models.modulated_conv import ModulatedConv, upsample_conv
from interestyle_jax.models.pixel_blocks import block_conv, in_strips, strips_of
from interestyle_jax.models.products import conv_general_dilated
from interestyle_jax.models.strided_conv import (
    DIMENSIONS,
    _as_gradient,
    strided_conv,
    transposed_conv,
)
from interestyle_jax.models.stylegan2 import Generator, StyledConv, num_styles, truncate

TINY = {
    "resolution": 16,
    "w_dim": 8,
    "z_dim": 8,
    "mapping_depth": 2,
    "channel_base": 64,
    "channel_max": 8,
}


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def tiny():
    generator = Generator(**TINY)
    variables = jax.jit(generator.init)(jax.random.key(0), jnp.zeros((1, 8)))
    # Noise strengths start at 0; drawn anew so that noise shows.
    params = jax.tree.map(lambda a: a + 0.3 if a.ndim == 0 else a, dict(variables["params"]))
    return generator, {"params": params, "noise": variables["noise"]}


@pytest.mark.parametrize(
    ("resolution", "channel_base", "generator", "discriminator"),
    [(1024, 32768, 30_370_060, 29_012_513), (256, 32768, 30_034_338, 28_864_129)],
)
def test_official_parameter_counts(resolution, channel_base, generator, discriminator):
    g = Generator(resolution=resolution, channel_base=channel_base)
    g_shapes = jax.eval_shape(g.init, jax.random.key(0), jnp.zeros((1, 512)))
    assert count(g_shapes["params"]) == generator
    d = Discriminator(resolution, channel_base=channel_base)
    images = jnp.zeros((1, resolution, resolution, 3))
    d_shapes = jax.eval_shape(d.init, jax.random.key(0), images)
    assert count(d_shapes["params"]) == discriminator


def test_rows_of_a_w_plus():
    assert [num_styles(r) for r in (64, 256, 1024)] == [10, 14, 18]
    with pytest.raises(ValueError, match="power of two"):
        num_styles(96)


def test_noise_stored_fresh_and_none(tiny):
    generator, variables = tiny
    w_plus = jax.random.normal(jax.random.key(1), (2, generator.num_styles, 8))
    draw = jax.jit(
        lambda w, noise: generator.apply(variables, w, noise, method="synthesize"),
        static_argnames="noise",
    )
    const, none = draw(w_plus, noise="const"), draw(w_plus, noise="none")
    assert const.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(const, draw(w_plus, noise="const"))
    assert not np.allclose(const, none)
    fresh = jax.jit(lambda w, k: generator.apply(variables, w, k, method="synthesize"))
    first, second = fresh(w_plus, jax.random.key(2)), fresh(w_plus, jax.random.key(3))
    assert not np.allclose(first, second)
    # Stored noise is shared by the images of a batch, fresh noise is not.
    same = jnp.broadcast_to(w_plus[:1], w_plus.shape)
    np.testing.assert_allclose(*draw(same, noise="const"), rtol=1e-5, atol=1e-5)
    pair = fresh(same, jax.random.key(2))
    assert not np.allclose(pair[0], pair[1])


def test_fresh_noise_is_drawn_in_float32():
    """Drawn in bfloat16 a normal has 128 values, half of them above 0."""
    layer = StyledConv(1, 1)
    x, style = jnp.zeros((1, 64, 64, 1), jnp.bfloat16), jnp.zeros((1, 1))
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: layer.init(key, x, style, "const"))
    variables = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    params = {**variables["params"], "noise_strength": jnp.ones(())}
    drawn = jax.jit(layer.apply)({**variables, "params": params}, x, style, key)
    assert drawn.dtype == jnp.bfloat16
    values = np.asarray(drawn, np.float32)
    assert np.unique(values[values > 0]).size > 200
    # Behind the layer's leaky ReLU of slope 0.2 and gain sqrt(2).
    np.testing.assert_allclose(np.std(np.where(values > 0, values, 5 * values)), 2**0.5, rtol=0.05)


def test_each_style_row_reaches_the_image(tiny):
    generator, variables = tiny
    draw = jax.jit(lambda w: generator.apply(variables, w, "none", method="synthesize"))
    w_plus = jax.random.normal(jax.random.key(1), (1, generator.num_styles, 8))
    for row in range(generator.num_styles):
        assert not np.allclose(draw(w_plus), draw(w_plus.at[0, row].add(1.0)))


def test_wrong_latents_and_noise_are_refused(tiny):
    generator, variables = tiny
    with pytest.raises(ValueError, match=r"w_plus: expected \[B, 6, 8\], got \(2, 5, 8\)"):
        generator.apply(variables, jnp.zeros((2, 5, 8)), "const", method="synthesize")
    with pytest.raises(ValueError, match="noise: expected"):
        generator.apply(variables, jnp.zeros((2, 6, 8)), "random", method="synthesize")


def test_truncation_pulls_to_the_mean():
    w, w_avg = jnp.array([[2.0, 4.0]]), jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(truncate(w, w_avg, 1.0), w)
    np.testing.assert_array_equal(truncate(w, w_avg, 0.0), w_avg[None])
    np.testing.assert_allclose(truncate(w, w_avg, 0.5), [[1.5, 3.0]])


def test_fused_upsampling_equals_the_plain_form():
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    plain = upsample_conv(x, kernel, form="separable")
    np.testing.assert_allclose(upsample_conv(x, kernel, form="fused"), plain, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="form: expected"):
        upsample_conv(x, kernel, form="other")


def as_blocks(x, block):
    batch, height, width, channels = x.shape
    (y, columns) = block
    x = x.reshape(batch, height // y, y, width // columns, columns, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // y, width // columns, -1)


@pytest.mark.parametrize("strips", [1, 2])
@pytest.mark.parametrize(
    ("block", "out", "up"),
    [((1, 1), (1, 1), True), ((2, 2), (2, 4), True), ((2, 4), (2, 4), False)],
)
def test_convolutions_of_maps_in_blocks(block, out, up, strips):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 2))
    if up:
        want = upsample_conv(x, kernel)
    else:
        want = conv_general_dilated(
            x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    cut = in_strips(as_blocks(x, block), strips)
    got = block_conv(cut, kernel, block, out, up=up, strips=strips)
    np.testing.assert_allclose(got, in_strips(as_blocks(want, out), strips), atol=1e-5)


def test_few_images_of_a_device_are_cut_into_strips():
    assert [strips_of(batch) for batch in (1, 2, 3, 8, 16)] == [8, 4, 2, 1, 1]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        assert [strips_of(batch) for batch in (8, 16, 64)] == [8, 4, 1]


def test_maps_in_blocks_give_the_same_images_and_gradients(monkeypatch):
    """In strips of one row, with changes between blocks; stored, each image's own, fresh noise."""
    monkeypatch.setattr(stylegan2, "STRIPS_FROM", 4)
    fields = {**TINY, "resolution": 32, "channel_base": 1024, "channel_max": 128}
    plain, blocks = Generator(**fields), Generator(**fields, form="blocks")
    assert [blocks.block(2**i) for i in range(2, 6)] == [(1, 1), (1, 1), (1, 2), (2, 2)]
    assert plain.block(32) == (1, 1)
    variables = jax.jit(plain.init)(jax.random.key(0), jnp.zeros((1, 8)))
    variables = jax.tree.map(
        lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables
    )
    w_plus = jax.random.normal(jax.random.key(1), (2, plain.num_styles, 8))
    noise = jax.tree.map(lambda x: jnp.concatenate([x, 2 * x]), variables["noise"])
    own = {**variables, "noise": noise}

    def draw(generator):
        @jax.jit
        def run(w_plus):
            def loss(w_plus):
                images = generator.apply(
                    variables, w_plus, jax.random.key(2), method="synthesize", return_skips=True
                )
                return sum(jnp.sum(jnp.sin(image)) for image in images), images

            (_, images), gradient = jax.value_and_grad(loss, has_aux=True)(w_plus)
            stored = [generator.apply(x, w_plus, method="synthesize") for x in (variables, own)]
            return [*images, *stored, gradient]

        return run(w_plus)

    wanted = draw(plain)
    for got, want in zip(draw(blocks), wanted, strict=True):
        scale = float(jnp.abs(want).max())
        np.testing.assert_allclose(got / scale, want / scale, atol=3e-6)
    *_, stored, with_own, _ = wanted
    np.testing.assert_allclose(with_own[0], stored[0], atol=1e-5)
    assert np.abs(with_own[1] - stored[1]).max() > 0.01


@pytest.mark.parametrize("form", ["separable", "blocks"])
def test_a_number_of_images_may_be_unknown(tiny, form, monkeypatch):
    """As `interestyle export` has it; in blocks they are not cut into strips then."""
    monkeypatch.setattr(stylegan2, "STRIPS_FROM", 4)
    _, variables = tiny
    generator = Generator(**TINY, form=form)
    synthesize = jax.jit(lambda w: generator.apply(variables, w, method="synthesize"))
    (batch,) = jax.export.symbolic_shape("batch")
    spec = jax.ShapeDtypeStruct((batch, generator.num_styles, 8), np.float32)
    w_plus = jax.random.normal(jax.random.key(1), (3, generator.num_styles, 8))
    exported = jax.export.export(synthesize)(spec)
    np.testing.assert_allclose(exported.call(w_plus), synthesize(w_plus), atol=1e-5)


def test_the_backend_decides_the_form():
    fields = {"type": "Generator", **TINY}
    assert registry.build(fields).form == "separable"
    with backend.built_for("tpu"):
        assert registry.build(fields).form == "blocks"
        assert registry.build(fields, form="fused").form == "fused"
    assert registry.build(fields) == Generator(**TINY)


def test_on_gpus_transposed_convolutions_are_data_gradients():
    """Of a kernel that is reversed twice: cuDNN's forward convolution would see the zeros."""
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 2))
    traced = jax.jit(transposed_conv).trace(x, kernel)
    texts = [traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "cpu", "tpu")]
    assert [text.count("stablehlo.convolution") for text in texts] == [1, 1, 1]
    assert [text.count("stablehlo.reverse") for text in texts] == [2, 0, 0]
    np.testing.assert_array_equal(_as_gradient(x, kernel, padding=2), transposed_conv(x, kernel))


def test_gradients_of_the_strided_pair_are_xlas():
    def plain_strided(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (2, 2), [(0, 0)] * 2, dimension_numbers=DIMENSIONS
        )

    def plain_transposed(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )

    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    for ours, plain, size in [
        (strided_conv, plain_strided, 9),
        (transposed_conv, plain_transposed, 4),
    ]:
        x = jax.random.normal(jax.random.key(0), (2, size, size, 2))

        def first_order(f, x, k):
            return jax.grad(lambda x, k: jnp.sum(jnp.sin(f(x, k))), (0, 1))(x, k)

        def second_order(f, x, k):
            inner = jax.grad(lambda x: jnp.sum(jnp.sin(f(x, k))))
            return jax.grad(lambda x, k: jnp.sum(inner(x) ** 2) + jnp.sum(k * 0), (0,))(x, k)

        def penalty(f, x, k):
            def squared(k):
                return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(f(x, k))))(x) ** 2)

            return jax.grad(squared)(k)

        for order in (first_order, second_order, penalty):
            got = jax.jit(lambda x, k, f=ours, o=order: o(f, x, k))(x, kernel)
            want = jax.jit(lambda x, k, f=plain, o=order: o(f, x, k))(x, kernel)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want
            )


def test_stddev_groups_lie_apart_and_must_divide():
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)
    out = minibatch_stddev(jnp.asarray(x))
    for i in range(2):
        group = x[i::2]
        want = np.sqrt(group.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(out[i::2, ..., 3], want, rtol=1e-5)
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        minibatch_stddev(jnp.zeros((6, 2, 2, 3)))


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_of_a_sharded_batch_has_no_collective(up):
    """Forward and the gradient of its inputs, with the batch split over eight devices."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    module = ModulatedConv(3, 4, up=up)
    x, w = jnp.ones((8, 6, 6, 3)), jnp.ones((8, 5))

    def convolve(module, x, w):
        return module(x, module.style(w))

    params = module.init(jax.random.key(0), x, w, method=convolve)

    def objective(x, w, params):
        return jnp.sin(module.apply(params, x, w, method=convolve)).sum(axis=(1, 2, 3))

    def gradients(x, w, params):
        out, pull = jax.vjp(lambda x, w: objective(x, w, params), x, w)
        return out, *pull(jnp.ones_like(out))

    compiled = (
        jax.jit(gradients, in_shardings=(rows, rows, whole), out_shardings=(rows,) * 3)
        .lower(x, w, params)
        .compile()
    )
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
