"""The three gradient modes on tiny networks in float64, against references written out here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.interest.uninterest_filter import filtered_inputs
from interestyle_jax.training.encoder_gradients import EncoderLoss, Position, in_turn, taken_apart
from interestyle_jax.training.losses import ImageLoss

BATCH, SIZE, STYLES, WIDTH, COUNT, WEIGHT = 3, 4, 2, 3, 5, 0.4


@pytest.fixture
def world():
    """An encoder that is affine in batch-normalised images, and a smooth generator."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 5)
        w_avg = jax.random.normal(keys[0], (1, STYLES, WIDTH))
        world = {
            "kernel": 0.1 * jax.random.normal(keys[1], (SIZE * SIZE * 6, STYLES * WIDTH)),
            "generator": 0.4 * jax.random.normal(keys[2], (STYLES * WIDTH, SIZE * SIZE * 3)),
            "image": jax.random.uniform(keys[3], (BATCH, SIZE, SIZE, 3), minval=-1),
            "mask": jax.random.uniform(keys[4], (BATCH, SIZE, SIZE, 1)),
            "w_0": jnp.broadcast_to(w_avg, (BATCH, STYLES, WIDTH)),
        }
        world["inputs"] = filtered_inputs(world["image"], world["mask"], COUNT, (2, 1, 0.5, 0.3))
        yield world


def networks(world):
    def encode_with(kernel):
        def encode(mean, x):
            x = x.reshape(x.shape[0], -1) @ kernel
            mean = 0.9 * mean + 0.1 * x.mean(0)
            return (x - x.mean(0) + 0.1).reshape(-1, STYLES, WIDTH), mean

        return encode

    def synthesize(w_plus, i):
        image = jnp.sin(w_plus.reshape(w_plus.shape[0], -1) @ world["generator"] + 0.01 * i)
        return image.reshape(-1, SIZE, SIZE, 3)

    return encode_with, synthesize


def ours(world, kernel, gradient="last", loop="unroll", weight=WEIGHT, through_w=False, **options):
    encode_with, synthesize = networks(world)
    start = Position(jnp.zeros(STYLES * WIDTH), world["w_0"], synthesize(world["w_0"], 0))
    loss = EncoderLoss(
        encode_with, synthesize, ImageLoss({"l2": 1.0}), gradient, loop, weight, through_w
    )
    inputs = options.pop("inputs", world["inputs"])
    return loss.gradients(kernel, start, inputs, world["image"], world["mask"], **options)


def pass_once(world, kernel, w, image, i):
    """w_i and y_i of iteration i, counted from one."""
    encode_with, synthesize = networks(world)
    x = jnp.concatenate([world["inputs"][i - 1], image], axis=-1)
    w = w + encode_with(kernel)(jnp.zeros(()), x)[0]
    return w, synthesize(w, i)


def masked_l2(world, y_hat):
    return jnp.mean(jnp.square(world["image"] * world["mask"] - y_hat * world["mask"]))


def equation_three(world, kernel, w, y_hat, through_w):
    encode_with, synthesize = networks(world)
    pair = jnp.concatenate([world["image"], world["image"] * world["mask"]], axis=-1)
    delta_b = encode_with(kernel)(jnp.zeros(()), pair)[0]
    y_b = synthesize((w if through_w else jax.lax.stop_gradient(w)) + delta_b, COUNT + 1)
    return masked_l2(world, y_hat) + WEIGHT * masked_l2(world, y_b)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize("through_w", [False, True])
def test_last_equals_two_passes_written_out(world, loop, through_w):
    w, image = world["w_0"], networks(world)[1](world["w_0"], 0)
    for i in range(1, COUNT):
        w, image = pass_once(world, world["kernel"], w, image, i)

    def second_pass(kernel):
        w_n, y_n = pass_once(world, kernel, w, image, COUNT)
        return equation_three(world, kernel, w_n, y_n, through_w)

    value, want = jax.value_and_grad(second_pass)(world["kernel"])
    grads, _, metrics = ours(world, world["kernel"], "last", loop, through_w=through_w)
    np.testing.assert_allclose(grads, want, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-12)
    parts = metrics["l2"] + WEIGHT * metrics["ind_l2"]
    np.testing.assert_allclose(parts, value, rtol=1e-12)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize("through_w", [False, True])
def test_through_equals_finite_differences(world, loop, through_w):
    # Without the flow through w_N the loss is no function whose derivative is taken: its w_N is
    # held at the parameters' value, which `frozen` does here.
    def whole(kernel, frozen):
        w, image = world["w_0"], networks(world)[1](world["w_0"], 0)
        for i in range(1, COUNT + 1):
            w, image = pass_once(world, kernel, w, image, i)
        return equation_three(world, kernel, w if frozen is None else frozen, image, True), w

    frozen = None if through_w else whole(world["kernel"], None)[1]
    value = jax.jit(lambda kernel: whole(kernel, frozen)[0])
    step = jax.jit(lambda kernel: ours(world, kernel, "through", loop, through_w=through_w))
    grads, _, metrics = step(world["kernel"])
    np.testing.assert_allclose(metrics["loss"], value(world["kernel"]), rtol=1e-12)
    h = 1e-4
    for seed in range(4):
        direction = jax.random.normal(jax.random.key(seed), world["kernel"].shape)

        def difference(h, direction=direction):
            return value(world["kernel"] + h * direction) - value(world["kernel"] - h * direction)

        # Fourth-order central difference.
        slope = (8 * difference(h) - difference(2 * h)) / (12 * h)
        np.testing.assert_allclose(jnp.vdot(grads, direction), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_each_without_mask_and_disentanglement_is_restyle(world, loop):
    # ReStyle: backward after every iteration, whose start is detached; gradients add up.
    inputs = (world["image"],) * COUNT
    plain = {**world, "inputs": inputs}
    w, image = world["w_0"], networks(world)[1](world["w_0"], 0)
    want, total = jnp.zeros_like(world["kernel"]), 0.0
    for i in range(1, COUNT + 1):

        def one(kernel, w=w, image=image, i=i):
            w, y_hat = pass_once(plain, kernel, w, image, i)
            return jnp.mean(jnp.square(world["image"] - y_hat)), (w, y_hat)

        (loss, (w, image)), step = jax.value_and_grad(one, has_aux=True)(world["kernel"])
        want, total = want + step, total + loss
    grads, _, metrics = ours(
        world, world["kernel"], "each", loop, weight=0.0, inputs=inputs, interest_loss=False
    )
    np.testing.assert_allclose(grads, want, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-12)
    np.testing.assert_allclose(metrics["l2"], loss, rtol=1e-12)
    assert not any(name.startswith("ind") for name in metrics)


@pytest.mark.parametrize("gradient", ["last", "each", "through"])
def test_scan_equals_unroll_and_statistics_see_every_pass(world, gradient):
    grads, mean, metrics = ours(world, world["kernel"], gradient, "unroll")
    scanned_grads, scanned_mean, scanned_metrics = ours(world, world["kernel"], gradient, "scan")
    np.testing.assert_allclose(grads, scanned_grads, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(mean, scanned_mean, rtol=1e-12)
    assert metrics.keys() == scanned_metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, scanned_metrics[name], rtol=1e-12)

    encode = networks(world)[0](world["kernel"])
    want = jnp.zeros(STYLES * WIDTH)
    w, image = world["w_0"], networks(world)[1](world["w_0"], 0)
    for i, x in enumerate(world["inputs"], start=1):
        _, want = encode(want, jnp.concatenate([x, image], axis=-1))
        w, image = pass_once(world, world["kernel"], w, image, i)
    pair = jnp.concatenate([world["image"], world["image"] * world["mask"]], axis=-1)
    _, want = encode(want, pair)
    np.testing.assert_allclose(mean, want, rtol=1e-12)


def test_filter_with_all_radii_zero_changes_no_bit(world):
    zero = filtered_inputs(world["image"], world["mask"], COUNT, (0.0,) * 4)
    got = ours(world, world["kernel"], inputs=zero)
    want = ours(world, world["kernel"], inputs=(world["image"],) * COUNT)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("through_w", [False, True])
@pytest.mark.parametrize("interest_loss", [False, True])
def test_two_passes_in_one_call_give_the_same(world, interest_loss, through_w):
    """Values, gradients, metrics and the carry, with latent and pair losses."""
    encode_with, _ = networks(world)
    calls = []

    def synthesize(w_plus, i):
        calls.append(len(w_plus))
        return networks(world)[1](w_plus, 0)

    def encode_both_with(kernel):
        def encode_both(mean, x):
            a, b = taken_apart(x)
            delta_a, mean = encode_with(kernel)(mean, a)
            delta_b, mean = encode_with(kernel)(mean, b)
            return in_turn(delta_a, delta_b), mean

        return encode_both

    def latent_loss(w_plus):
        norm = jnp.square(w_plus).mean()
        return 0.1 * norm, {"norm": norm}

    rows = {k: world[k][:2] for k in ("image", "mask", "w_0")}
    start = Position(jnp.zeros(STYLES * WIDTH), rows["w_0"], synthesize(rows["w_0"], 0))
    inputs = [x[:2] for x in world["inputs"]]

    def gradients(encode_both_with):
        loss = EncoderLoss(
            encode_with,
            synthesize,
            ImageLoss({"l2": 1.0}),
            disentangle_weight=WEIGHT,
            disentangle_through_w=through_w,
            latent_loss=latent_loss,
            pair_weight=0.3 if interest_loss else 0.0,
            encode_both_with=encode_both_with,
        )
        calls.clear()
        return loss.gradients(
            world["kernel"],
            start,
            inputs,
            rows["image"],
            rows["mask"],
            interest_loss=interest_loss,
        )

    want = gradients(None)
    assert calls == [2] * (COUNT + 1)
    got = gradients(encode_both_with)
    assert calls == [2] * (COUNT - 1) + [4]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), got, want)
