"""`load` and `Model` on tiny random networks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.inversion import inverter
from interestyle_jax.inversion.resize import crop_to_shape, encoder_input, resize_images
from interestyle_jax.parallel.sharding import make_mesh
from interestyle_jax.weights import load_weights, save_weights

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


def test_each_image_is_inverted_alone(model, images, inversion):
    swapped = model.invert(images[::-1].copy(), num_steps=2)
    np.testing.assert_allclose(swapped.w_plus[:, 0], inversion.w_plus[:, 1], rtol=1e-5, atol=1e-5)


def test_images_of_any_size_are_resized(model, images, inversion):
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    resized = model.invert(np.asarray(resize_images(large, (SIZE, SIZE))), num_steps=2)
    np.testing.assert_allclose(
        model.invert(large, num_steps=2).w_plus, resized.w_plus, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(64, 64), (50, 41), (16, 16), (20, 70)])
def test_resizing_on_the_host_equals_resizing_in_jax(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scaled = jnp.asarray(image, jnp.float32)[None] / 127.5 - 1
    # PIL rounds to 8 bits after each of its two passes.
    np.testing.assert_allclose(
        encoder_input(image, (SIZE, SIZE)),
        resize_images(scaled, (SIZE, SIZE))[0],
        atol=1.01 / 127.5,
    )


def test_only_what_is_asked_for_comes_back(model, images, inversion):
    last = model.invert(images, num_steps=2, return_images="last")
    assert last.images.shape == (1, *inversion.images.shape[1:])
    np.testing.assert_allclose(last.images[0], inversion.images[-1], rtol=1e-4, atol=1e-4)
    none = model.invert(images, num_steps=2, return_images="none")
    assert none.images is None
    np.testing.assert_allclose(none.w_plus, inversion.w_plus, rtol=1e-4, atol=1e-5)
    with pytest.raises(ij.InputError, match="return_images: 'first', expected one of all, last"):
        model.invert(images, return_images="first")


def test_one_program_for_images_of_all_sizes_and_no_hidden_transfer(model):
    draw = np.random.default_rng(4).uniform
    with jax.transfer_guard("disallow"):
        model.invert(draw(-1, 1, (3, SIZE, SIZE, 3)), num_steps=1)
        before = inverter._invert._cache_size()
        for shape in [(3, 40, 20, 3), (3, 64, 64, 3), (3, SIZE, SIZE, 3)]:
            result = model.invert(draw(-1, 1, shape), num_steps=1)
        assert inverter._invert._cache_size() == before
        assert jax.device_get(result).w_plus.shape == (1, 3, ROWS, W_DIM)


def test_a_scanned_loop_gives_the_same(model, images, inversion, monkeypatch):
    monkeypatch.setattr(inverter, "_platform", lambda images: "gpu")
    for returned in ("all", "last"):
        scanned = model.invert(images, num_steps=2, return_images=returned)
        np.testing.assert_allclose(scanned.w_plus, inversion.w_plus, rtol=1e-4, atol=1e-5)
        expected = inversion.images[-len(scanned.images) :]
        np.testing.assert_allclose(scanned.images, expected, rtol=1e-4, atol=1e-4)


def test_a_mesh_gives_the_same_for_batches_that_it_does_not_divide(tiny_weights, model):
    images = np.random.default_rng(5).uniform(-1, 1, (11, SIZE, SIZE, 3)).astype(np.float32)
    spread = ij.load(tiny_weights / "inverter", mesh=make_mesh())
    assert spread.num_devices == 8
    for leaf in jax.tree.leaves(spread.variables):
        assert leaf.sharding.is_fully_replicated and len(leaf.devices()) == 8
    rows = spread._put_rows(images)
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2, SIZE, SIZE, 3)}
    with jax.transfer_guard("disallow"):
        inversion = spread.invert(images, num_steps=1)
    assert inversion.w_plus.shape == (1, 11, ROWS, W_DIM)
    expected = model.invert(images, num_steps=1)
    np.testing.assert_allclose(inversion.w_plus, expected.w_plus, atol=1e-5)
    np.testing.assert_allclose(inversion.images, expected.images, atol=1e-4)


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
    ("bad", "message"),
    [
        (np.zeros((2, SIZE, SIZE, 1), np.float32), r"32, 1\), expected \[B, H, W, 3\]"),
        (np.zeros((SIZE, SIZE, 3), np.float32), r"shape \(32, 32, 3\), expected \[B, H, W, 3\]"),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), r"dtype uint8, expected floats in \[-1, 1\]"),
        (np.full((1, SIZE, SIZE, 3), 255.0), "values reach 255, expected floats"),
        (np.full((1, SIZE, SIZE, 3), np.nan), "values reach nan"),
        (np.zeros((0, SIZE, SIZE, 3)), "holds no pixels"),
    ],
)
def test_bad_images(model, bad, message):
    with pytest.raises(ij.InputError, match=f"images: .*{message}"):
        model.invert(bad)


def test_bad_rows_of_device_arrays_are_nan(model, images, inversion):
    rows = np.concatenate([images, images[:1] * 255, np.full_like(images[:1], np.nan)])
    with jax.transfer_guard("disallow"):
        result = model.invert(jax.device_put(rows), num_steps=2)
    for found, expected in zip(result, inversion, strict=True):
        assert jnp.isnan(found[:, 2:]).all()
        np.testing.assert_allclose(found[:, :2], expected, rtol=1e-4, atol=1e-4)


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


@pytest.fixture(scope="module")
def make_model(tiny_weights, tmp_path_factory):
    """The tiny inverter with changes of its encoder's variables and of what metadata says."""
    source = load_weights(tiny_weights / "inverter")

    def make(name, *, change=lambda encoder: encoder, fields=None, extra=None):
        variables = dict(source.variables)
        variables["encoder"] = change(source.variables["encoder"])
        architectures = dict(source.metadata["architectures"])
        architectures["encoder"] = architectures["encoder"] | (fields or {})
        folder = tmp_path_factory.mktemp("models") / name
        save_weights(
            folder,
            variables,
            family="test",
            architectures=architectures,
            licence="none",
            extra=extra,
        )
        return folder

    return make


def test_wide_encoders_see_the_middle_rows(make_model):
    model = ij.load(make_model("cars", extra={"image_shape": [24, 32]}))
    images = np.random.default_rng(3).uniform(-1, 1, (2, 24, 32, 3)).astype(np.float32)
    inversion = model.invert(images, num_steps=2)
    w = model.mean_latent(2)
    for i in range(2):
        y = model.synthesize(w)[:, 4:28]
        w = w + model.encode(jnp.concatenate([images, y], axis=-1))
        np.testing.assert_allclose(inversion.w_plus[i], w, rtol=1e-4, atol=1e-5)
    assert inversion.images.shape == (2, 2, 24, 32, 3)
    np.testing.assert_allclose(
        inversion.images[-1], model.synthesize(w)[:, 4:28], rtol=1e-4, atol=1e-4
    )


def test_official_cars_keep_rows_64_to_448():
    rows = jnp.arange(512.0)[:, None, None] * jnp.ones((1, 512, 3))
    kept = crop_to_shape(rows[None], (192, 256))
    assert kept.shape == (1, 384, 512, 3)
    assert (float(kept[0, 0, 0, 0]), float(kept[0, -1, 0, 0])) == (64, 447)
    with pytest.raises(ValueError, match="no middle part"):
        crop_to_shape(jnp.zeros((1, 4, 4, 3)), (5, 7))


def test_encoders_without_feedback_run_once(make_model, images):
    def three_channels(encoder):
        stem = encoder["params"]["trunk"]["stem_conv"] | {}
        stem["kernel"] = stem["kernel"][:, :, :3]
        trunk = encoder["params"]["trunk"] | {"stem_conv": stem}
        return encoder | {"params": encoder["params"] | {"trunk": trunk}}

    model = ij.load(make_model("psp", change=three_channels, fields={"input_channels": 3}))
    inversion = model.invert(images)
    w = model.mean_latent(2) + model.encode(images)
    np.testing.assert_allclose(inversion.w_plus, w[None], rtol=1e-5, atol=1e-5)
    with pytest.raises(ij.InputError, match="num_steps: 5, expected 1"):
        model.invert(images, num_steps=5)


def test_iterative_encoders_run_five_times_unless_told(model, images):
    assert model.iterations() == 5
    assert model.invert(images).w_plus.shape[0] == 5


def test_bfloat16_inversion_is_near_and_ends_in_float32(tiny_weights, images, inversion):
    low = ij.load(tiny_weights / "inverter", dtype="bfloat16").invert(images, num_steps=2)
    assert low.w_plus.dtype == low.images.dtype == jnp.float32
    error = jnp.linalg.norm(low.w_plus - inversion.w_plus) / jnp.linalg.norm(inversion.w_plus)
    assert 1e-5 < float(error) < 0.05
    with pytest.raises(ij.InputError, match="dtype: 'float8'"):
        ij.load(tiny_weights / "inverter", dtype="float8")


def test_resizing_is_the_official_transform(golden_dir, goldenfill):
    golden = np.load(golden_dir / "public/pil_image_ops.npz")
    recipes = {r["name"]: r for r in json.loads(str(golden["recipe_json"]))}
    recipe = recipes["input:pil1024"]
    image = goldenfill.image_u8(recipe["name"], *recipe["args"], **recipe["kwargs"])
    x = encoder_input(image, (256, 256))
    rows = np.round((x[::16] + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(rows, golden["pyramid1024_to256_r0.rows"])
    want = golden["normalized256.sub"]
    index = goldenfill.subset_index(x.size, len(want))
    np.testing.assert_allclose(x.transpose(2, 0, 1).ravel()[index], want, atol=2e-7)
