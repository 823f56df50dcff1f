"""The refinement loop on linear toy networks, in float64, against loops written out here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.disentanglement import disentangle
from interestyle_jax.inversion.refinement import pool_to, refine, start_from

BATCH, SIZE, STYLES, WIDTH, RESOLUTION, COUNT = 2, 2, 3, 4, 4, 3


@pytest.fixture
def world():
    """A smooth nonlinear encoder and generator over a few numbers, in float64."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 6)
        yield {
            "kernel": 0.2 * jax.random.normal(keys[0], (SIZE * SIZE * 6, STYLES * WIDTH)),
            "generator": 0.3
            * jax.random.normal(keys[1], (STYLES * WIDTH, RESOLUTION * RESOLUTION * 3)),
            "inputs": tuple(jax.random.normal(k, (BATCH, SIZE, SIZE, 3)) for k in keys[2:5]),
            "w_avg": jax.random.normal(keys[5], (STYLES, WIDTH)),
        }


def networks(world, kernel):
    def encode(carry, x):
        x = x.reshape(x.shape[0], -1)
        carry = None if carry is None else carry + 1 + x.mean()
        return jnp.tanh(x @ kernel).reshape(-1, STYLES, WIDTH), carry

    def synthesize(w_plus, i):
        image = w_plus.reshape(w_plus.shape[0], -1) @ world["generator"] + 0.1 * i
        return jnp.sin(image).reshape(-1, RESOLUTION, RESOLUTION, 3)

    return encode, synthesize


def run(world, kernel, **options):
    encode, synthesize = networks(world, kernel)
    options = {"carry": jnp.zeros(()), **options}
    return refine(encode, synthesize, world["inputs"], world["w_avg"], **options)


def pool(image):
    return image.reshape(-1, SIZE, 2, SIZE, 2, 3).mean((2, 4))


def written_out(world, kernel, detach_before):
    """The loop as a reader would write it; iterations in `detach_before` get constant inputs."""
    encode, synthesize = networks(world, kernel)
    w = jnp.broadcast_to(world["w_avg"], (BATCH, STYLES, WIDTH))
    image = synthesize(w, 0)
    latents, images = [], []
    for i, x_i in enumerate(world["inputs"], start=1):
        if i in detach_before:
            w, image = jax.lax.stop_gradient((w, image))
        delta, _ = encode(None, jnp.concatenate([x_i, pool(image)], axis=-1))
        w = w + delta
        image = synthesize(w, i)
        latents.append(w)
        images.append(image)
    return jnp.stack(latents), jnp.stack(images)


def loss(w_plus, images):
    return jnp.sum(jnp.square(images - 0.3)) + jnp.sum(jnp.sin(w_plus))


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize("gradient", ["last", "each", "through"])
def test_values_are_those_of_the_written_out_loop(world, gradient, loop):
    got = run(world, world["kernel"], gradient=gradient, loop=loop)
    w_plus, images = written_out(world, world["kernel"], ())
    assert got.w_plus.shape == (COUNT, BATCH, STYLES, WIDTH)
    assert got.images.shape == (COUNT, BATCH, RESOLUTION, RESOLUTION, 3)
    np.testing.assert_allclose(got.w_plus, w_plus, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.images, images, rtol=1e-12, atol=1e-12)
    sum_of_means = got.carry - COUNT
    assert abs(float(sum_of_means)) > 1e-6


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_last_gives_the_gradient_of_the_last_iteration_alone(world, loop):
    def two_passes(kernel):
        # First pass: everything before iteration N, with its own copy of the parameters.
        w_plus, images = written_out(world, world["kernel"], ())
        w, image = w_plus[-2], images[-2]
        encode, synthesize = networks(world, kernel)
        x = jnp.concatenate([world["inputs"][-1], pool(image)], axis=-1)
        w = w + encode(None, x)[0]
        return loss(w, synthesize(w, COUNT))

    def ours(kernel):
        got = run(world, kernel, gradient="last", loop=loop)
        return loss(got.w_plus[-1], got.images[-1])

    want = jax.grad(two_passes)(world["kernel"])
    np.testing.assert_allclose(jax.grad(ours)(world["kernel"]), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_last_keeps_all_earlier_results_constant(world, loop):
    def early(kernel):
        got = run(world, kernel, gradient="last", loop=loop)
        return loss(got.w_plus[:-1], got.images[:-1])

    assert not np.any(jax.grad(early)(world["kernel"]))


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_each_sums_the_gradients_of_detached_iterations(world, loop):
    def ours(kernel):
        got = run(world, kernel, gradient="each", loop=loop)
        return loss(got.w_plus, got.images)

    def reference(kernel):
        return loss(*written_out(world, kernel, (1, 2, 3)))

    want = jax.grad(reference)(world["kernel"])
    np.testing.assert_allclose(jax.grad(ours)(world["kernel"]), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_through_is_the_derivative_by_finite_differences(world, loop):
    @jax.jit
    def ours(kernel):
        got = run(world, kernel, gradient="through", loop=loop)
        return loss(got.w_plus[-1], got.images[-1])

    gradient = jax.jit(jax.grad(ours))(world["kernel"])
    step = 1e-4
    for seed in range(5):
        direction = jax.random.normal(jax.random.key(seed), world["kernel"].shape)

        def difference(h, direction=direction):
            return ours(world["kernel"] + h * direction) - ours(world["kernel"] - h * direction)

        # Fourth-order central difference.
        slope = (8 * difference(step) - difference(2 * step)) / (12 * step)
        np.testing.assert_allclose(jnp.vdot(gradient, direction), slope, rtol=1e-7, atol=1e-9)


def test_the_three_gradients_differ(world):
    def norm(gradient):
        def ours(kernel):
            got = run(world, kernel, gradient=gradient)
            return loss(got.w_plus, got.images)

        return float(jnp.linalg.norm(jax.grad(ours)(world["kernel"])))

    assert len({round(norm(g), 6) for g in ("last", "each", "through")}) == 3


def test_through_rematerialises_every_iteration(world):
    def ours(kernel):
        return run(world, kernel, gradient="through").images.sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(ours))(world["kernel"]))
    assert jaxpr.count("checkpoint") + jaxpr.count("remat") >= COUNT


def test_loop_in_parts_equals_the_whole(world):
    encode, synthesize = networks(world, world["kernel"])
    w_0, image_0 = start_from(synthesize, world["w_avg"][0], STYLES)
    whole = refine(encode, synthesize, world["inputs"], world["w_avg"][0], carry=jnp.zeros(()))
    first = refine(
        encode, synthesize, world["inputs"][:2], w_0, image_0=image_0, carry=jnp.zeros(())
    )
    rest = refine(
        encode,
        synthesize,
        world["inputs"][2:],
        first.w_plus[-1],
        image_0=first.images[-1],
        carry=first.carry,
        first_iteration=3,
    )
    np.testing.assert_allclose(rest.w_plus[-1], whole.w_plus[-1], rtol=1e-12)
    np.testing.assert_allclose(rest.images[-1], whole.images[-1], rtol=1e-12)
    np.testing.assert_allclose(rest.carry, whole.carry, rtol=1e-12)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_encoder_without_feedback_sees_the_image_alone(world, loop):
    _, synthesize = networks(world, world["kernel"])
    seen = []

    def encode(carry, x):
        seen.append(x.shape)
        return jnp.ones((x.shape[0], STYLES, WIDTH)), carry

    got = refine(encode, synthesize, world["inputs"][:1], world["w_avg"], feedback=False, loop=loop)
    assert seen == [(BATCH, SIZE, SIZE, 3)]
    np.testing.assert_allclose(got.w_plus[0, 1], world["w_avg"] + 1)
    assert got.images.shape == (1, BATCH, RESOLUTION, RESOLUTION, 3)


@pytest.mark.parametrize("through_w", [False, True])
def test_disentanglement_adds_the_delta_of_the_masked_pair(world, through_w):
    encode, synthesize = networks(world, world["kernel"])
    image = world["inputs"][0]
    mask = (jax.random.uniform(jax.random.key(3), (BATCH, SIZE, SIZE, 1)) > 0.5) * 1.0
    w_n = jnp.broadcast_to(world["w_avg"], (BATCH, STYLES, WIDTH))
    got = disentangle(
        encode, synthesize, image, mask, w_n, carry=jnp.zeros(()), through_w=through_w, iteration=4
    )
    delta_b, carry = encode(jnp.zeros(()), jnp.concatenate([image, image * mask], axis=-1))
    np.testing.assert_allclose(got.delta_b, delta_b)
    np.testing.assert_allclose(got.image, synthesize(w_n + delta_b, 4))
    np.testing.assert_allclose(got.carry, carry)

    def sensitivity(w):
        result = disentangle(encode, synthesize, image, mask, w, through_w=through_w)
        return jnp.sum(jnp.square(result.image))

    assert bool(jnp.any(jax.grad(sensitivity)(w_n) != 0)) == through_w


def test_pooling_is_a_block_mean_and_repeats_upwards():
    image = jnp.arange(32.0).reshape(1, 4, 4, 2)
    pooled = pool_to(image, (2, 4))
    np.testing.assert_allclose(pooled[0, 0], (image[0, 0] + image[0, 1]) / 2)
    assert pool_to(image, (4, 4)) is image
    np.testing.assert_array_equal(pool_to(image, (8, 4))[0, 3], image[0, 1])
    with pytest.raises(InputError, match="cannot pool 4 pixels to 3"):
        pool_to(image, (3, 4))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"gradient": "first"}, "gradient"),
        ({"loop": "while"}, "loop"),
        ({"feedback": False}, "num_iterations"),
    ],
)
def test_bad_options_name_the_field(world, options, field):
    with pytest.raises(InputError, match=field):
        run(world, world["kernel"], **options)
    with pytest.raises(InputError, match="num_iterations"):
        refine(*networks(world, world["kernel"]), (), world["w_avg"])
