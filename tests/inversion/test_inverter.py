"""`load` and `Model` on tiny random networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.inversion.resize import encoder_input, resize_images

SIZE, ROWS, W_DIM = 32, 8, 16


@pytest.fixture(scope="module")
def model(tiny_weights):
    return ij.load(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def inversion(model, images):
    return model.invert(images, num_steps=2)


def test_invert_is_the_loop_written_out(model, images, inversion):
    w = model.mean_latent(2)
    y = model.synthesize(w)
    for i in range(2):
        w = w + model.encode(jnp.concatenate([images, y], axis=-1))
        y = model.synthesize(w)
        np.testing.assert_allclose(inversion.w_plus[i], w, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(inversion.images[i], y, rtol=1e-4, atol=1e-4)
    assert inversion.w_plus.shape == (2, 2, ROWS, W_DIM)
    assert 0.05 < float(jnp.std(inversion.images)) < 20
    assert inversion.images.shape == (2, 2, SIZE, SIZE, 3)


def test_each_picture_is_inverted_alone(model, images, inversion):
    swapped = model.invert(images[::-1].copy(), num_steps=2)
    np.testing.assert_allclose(swapped.w_plus[:, 0], inversion.w_plus[:, 1], rtol=1e-5, atol=1e-5)


def test_pictures_of_any_size_are_resized(model, images, inversion):
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    resized = model.invert(np.asarray(resize_images(large, SIZE)), num_steps=2)
    np.testing.assert_allclose(
        model.invert(large, num_steps=2).w_plus, resized.w_plus, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(64, 64), (50, 41), (16, 16), (20, 70)])
def test_resizing_on_the_host_equals_resizing_in_jax(shape):
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scaled = jnp.asarray(picture, jnp.float32)[None] / 127.5 - 1
    np.testing.assert_allclose(
        encoder_input(picture, SIZE), resize_images(scaled, SIZE)[0], atol=2e-6
    )


def test_noise_of_synthesize(model):
    w_plus = model.mean_latent(2) + 0.5
    const = model.synthesize(w_plus)
    np.testing.assert_array_equal(const, model.synthesize(w_plus, noise="const"))
    np.testing.assert_allclose(const[0], const[1], rtol=1e-5, atol=1e-5)
    assert model.synthesize(w_plus, noise="none").shape == (2, SIZE, SIZE, 3)
    assert model.synthesize(w_plus, noise=jax.random.key(0)).shape == (2, SIZE, SIZE, 3)


def test_truncation_pulls_to_the_mean_latent(model):
    z = jax.random.normal(jax.random.key(0), (3, W_DIM))
    w = model.map(z)
    assert w.shape == (3, W_DIM)
    np.testing.assert_allclose(
        model.map(z, truncation_psi=0.5), (w + model.w_avg) / 2, rtol=1e-5, atol=1e-6
    )


def test_missing_parts_are_named(tiny_weights):
    generator = ij.load(tiny_weights / "generator")
    with pytest.raises(ValueError, match=r"no encoder .* invert needs"):
        generator.invert(np.zeros((1, SIZE, SIZE, 3), np.float32))
    with pytest.raises(ValueError, match="no embedder"):
        generator.embed(np.zeros((1, 112, 112, 3), np.float32))
    with pytest.raises(ValueError, match="no lpips"):
        generator.distance(np.zeros((1, 64, 64, 3)), np.zeros((1, 64, 64, 3)))
    encoder = ij.load(tiny_weights / "encoder")
    with pytest.raises(ValueError, match="no generator"):
        encoder.synthesize(np.zeros((1, ROWS, W_DIM)))
    with pytest.raises(ValueError, match="no w_avg"):
        _ = encoder.w_avg
    assert generator.synthesize(generator.mean_latent()).shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((2, SIZE, SIZE, 1), np.float32), r"32, 1\), expected \[B, H, W, 3\]"),
        (np.zeros((SIZE, SIZE, 3), np.float32), r"shape \(32, 32, 3\), expected \[B, H, W, 3\]"),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), r"dtype uint8, expected floats in \[-1, 1\]"),
        (np.full((1, SIZE, SIZE, 3), 255.0), "values reach 255, expected floats"),
        (np.full((1, SIZE, SIZE, 3), np.nan), "values reach nan"),
        (np.zeros((0, SIZE, SIZE, 3)), "holds no pixels"),
    ],
)
def test_bad_pictures(model, pictures, message):
    with pytest.raises(ij.InputError, match=f"images: .*{message}"):
        model.invert(pictures)


def test_other_bad_arguments(model, images):
    with pytest.raises(ij.InputError, match="num_steps: 0"):
        model.invert(images, num_steps=0)
    with pytest.raises(ij.InputError, match=r"w_plus: .*expected \[B, 8, 16\]"):
        model.synthesize(np.zeros((1, 18, W_DIM)))
    with pytest.raises(ij.InputError, match="noise: 'random'"):
        model.synthesize(model.mean_latent(), noise="random")
    with pytest.raises(ij.InputError, match=r"z: .*expected \[B, 16\]"):
        model.map(np.zeros((1, 512)))
    with pytest.raises(ij.InputError, match=r"x: .*expected \[B, 32, 32, 6\]"):
        model.encode(images)


def test_distance_of_the_shipped_lpips(images):
    lpips = ij.load("lpips_alex")
    np.testing.assert_allclose(lpips.distance(images, images), 0, atol=1e-6)
    assert float(lpips.distance(images, -images).min()) > 0.05
    with pytest.raises(ij.InputError, match="a and b"):
        lpips.distance(images, images[:1])


def test_unknown_names_say_what_ships():
    with pytest.raises(ij.InputError, match="lpips_alex"):
        ij.load("no_such_weights")
    with pytest.raises(AttributeError, match="no attribute"):
        _ = ij.nothing
