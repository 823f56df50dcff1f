"""The image loss against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop
from interestyle_jax.models.moco import MocoEmbedder
from interestyle_jax.training.losses import (
    ImageLoss,
    disentanglement_loss,
    embed_with,
    total_loss,
    w_norm,
)

RNG = np.random.default_rng(0)
IMAGE, Y_HAT = (jnp.asarray(RNG.uniform(-1, 1, (2, 4, 5, 3)), jnp.float32) for _ in range(2))
MASK = jnp.asarray(RNG.random((2, 4, 5, 1)), jnp.float32)


def far(a, b):
    return jnp.max(jnp.abs(a - 2 * b), axis=(1, 2, 3))


def embed(x):
    x = x.mean(axis=(1, 2))
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def test_sum_of_weighted_parts_on_masked_images():
    loss = ImageLoss({"l2": 1.0, "lpips": 0.8, "id": 0.1}, far, embed)
    total, parts = loss(IMAGE, Y_HAT, MASK)
    image, y_hat = np.asarray(IMAGE * MASK, np.float64), np.asarray(Y_HAT * MASK, np.float64)
    want = {
        # A mean over all pixels, not over the mask's area.
        "l2": ((image - y_hat) ** 2).sum((1, 2, 3)) / 60,
        "lpips": np.abs(image - 2 * y_hat).max((1, 2, 3)),
        "id": 1 - (np.asarray(embed(image)) * np.asarray(embed(y_hat))).sum(-1),
    }
    assert set(parts) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5)
    np.testing.assert_allclose(
        total, want["l2"] + 0.8 * want["lpips"] + 0.1 * want["id"], rtol=1e-5
    )


def test_without_a_mask_the_whole_image_counts():
    total, parts = ImageLoss({"l2": 2.0})(IMAGE, Y_HAT, None)
    np.testing.assert_allclose(parts["l2"], jnp.square(IMAGE - Y_HAT).mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(total, 2 * parts["l2"])


def test_what_lies_outside_of_the_mask_does_not_count():
    hole = MASK.at[:, :2].set(0.0)
    changed = Y_HAT.at[:, :2].add(3.0)
    loss = ImageLoss({"l2": 1.0, "lpips": 0.8}, far)
    np.testing.assert_array_equal(loss(IMAGE, changed, hole)[0], loss(IMAGE, Y_HAT, hole)[0])


def test_terms_without_weight_or_network_are_not_computed():
    def fails(*_):
        raise AssertionError("computed")

    total, parts = ImageLoss({"l2": 0.0, "lpips": 0.0, "id": 0.0}, fails, fails)(IMAGE, Y_HAT, None)
    assert parts == {}
    np.testing.assert_array_equal(total, np.zeros(2))
    _, parts = ImageLoss({"l2": 1.0, "lpips": 0.8, "id": 0.1})(IMAGE, Y_HAT, None)
    assert set(parts) == {"l2"}


def test_identity_of_the_target_is_constant():
    loss = ImageLoss({"id": 1.0}, embed=embed)
    by_image, by_y_hat = jax.grad(lambda a, b: loss(a, b, None)[0].sum(), argnums=(0, 1))(
        IMAGE, Y_HAT
    )
    assert not np.any(by_image)
    assert np.any(by_y_hat)


def test_w_norm_is_the_official_one(golden_case):
    numbers, inputs = golden_case("losses")
    w_plus = jnp.asarray(inputs["input:loss:latent"])
    zero = jnp.zeros(w_plus.shape[-1])
    np.testing.assert_allclose(w_norm(w_plus, zero).mean(), numbers["w_norm_f64"], rtol=1e-6)


def test_w_norm_has_no_gradient_where_training_begins():
    w_avg = jnp.arange(6.0).reshape(2, 3)
    w_plus = jnp.stack([w_avg, w_avg + 2.0])
    np.testing.assert_allclose(w_norm(w_plus, w_avg), [0.0, np.sqrt(24.0)], rtol=1e-6)
    gradient = jax.grad(lambda w: w_norm(w, w_avg).sum())(w_plus)
    np.testing.assert_array_equal(gradient[0], 0.0)
    np.testing.assert_allclose(gradient[1], 2.0 / np.sqrt(24.0), rtol=1e-6)


def test_equations_one_and_three():
    loss = ImageLoss({"l2": 1.0})
    ind, _ = disentanglement_loss(loss, IMAGE, Y_HAT, MASK)
    np.testing.assert_array_equal(ind, loss(IMAGE, Y_HAT, MASK)[0])
    np.testing.assert_allclose(total_loss(jnp.float32(2.0), jnp.float32(3.0), 0.05), 2.15)


@pytest.mark.parametrize("weights", [{"l3": 1.0}, {"l2": -1.0}, {"l2": float("nan")}])
def test_bad_weights_name_the_field(weights):
    with pytest.raises(InputError, match="loss.l"):
        ImageLoss(weights)


def pooled(image, size):
    """`AdaptiveAvgPool2d` of [H, W, C] by its definition."""

    def windows(side):
        return [(side * i // size, -(-side * (i + 1) // size)) for i in range(size)]

    rows, columns = windows(image.shape[0]), windows(image.shape[1])
    return np.stack([[image[a:b, c:d].mean((0, 1)) for c, d in columns] for a, b in rows])


@pytest.mark.parametrize("shape", [(256, 256), (512, 512), (64, 64), (300, 200)])
def test_identity_crop_is_pooled_to_256_cropped_and_pooled(shape):
    images = RNG.uniform(-1, 1, (1, *shape, 2)).astype(np.float32)
    want = pooled(images[0].astype(np.float64), 256)[35:223, 32:220]
    np.testing.assert_allclose(id_crop(images)[0], pooled(want, 112), atol=1e-6)
    np.testing.assert_allclose(id_crop(images, size=7)[0], pooled(want, 7), atol=1e-6)


def test_face_embedders_see_the_crop_and_other_embedders_the_whole_image():
    images = jnp.asarray(RNG.uniform(-1, 1, (2, 64, 64, 3)), jnp.float32)
    outside = images.at[:, :8].set(0.0).at[:, 56:].set(0.0)
    face = FaceEmbedder(units=(1,), widths=(4, 4), dim=3, input_size=14)
    changes = {}
    for module in (face, MocoEmbedder(units=(1,), width=2, input_size=32)):
        shapes = registry.variable_shapes(registry.describe(module))
        variables = jax.tree.map(lambda s: jnp.asarray(RNG.random(s.shape), jnp.float32), shapes)
        embed = jax.jit(embed_with(module, variables))
        found = embed(images)
        np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 1.0, rtol=1e-5)
        changes[type(module)] = float(jnp.abs(found - embed(outside)).max())
        if module is face:
            want = module.apply(variables, id_crop(images, size=14))
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    assert changes[FaceEmbedder] < 1e-6 < changes[MocoEmbedder]
