"""The uninterest filter against Eq. 2, spelled out with SciPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from interestyle_jax.errors import InputError
from interestyle_jax.interest.uninterest_filter import (
    filter_uninterest,
    filtered_inputs,
    low_pass,
    radii_at,
)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 12, 10, 3)).astype(np.float32)
    mask = (rng.random((2, 12, 10, 1)) > 0.5).astype(np.float32)
    return jnp.asarray(image), jnp.asarray(mask)


def gaussian(image, radius):
    """SciPy's Gaussian with repeated edges and the kernel cut off at ceil(3 sigma)."""
    half = int(np.ceil(3 * radius))
    sigma = (0, radius, radius, 0)
    image = np.asarray(image, np.float64)
    return ndimage.gaussian_filter(image, sigma, mode="nearest", radius=(0, half, half, 0))


@pytest.mark.parametrize("radius", [0.25, 1.0, 2.25])
def test_uninterest_region_is_blurred_and_the_rest_kept(case, radius):
    image, mask = case
    want = image * mask + gaussian(image * (1 - mask), radius)
    np.testing.assert_allclose(filter_uninterest(image, mask, radius), want, atol=2e-6)


def test_whole_image_is_blurred_on_request(case):
    image, mask = case
    got = filter_uninterest(image, mask, 1.0, region="image")
    np.testing.assert_allclose(got, gaussian(image, 1.0), atol=2e-6)


def test_borders_are_not_darkened():
    image = jnp.full((1, 8, 8, 3), 0.7)
    np.testing.assert_allclose(low_pass(image, 2.0), image, rtol=1e-6)


@pytest.mark.parametrize("radius", [0, 0.0, None])
@pytest.mark.parametrize("region", ["uninterest", "image"])
def test_radius_zero_is_the_identity_bit_for_bit(case, radius, region):
    image, mask = case
    np.testing.assert_array_equal(filter_uninterest(image, mask, radius, region=region), image)


def test_full_mask_leaves_the_image(case):
    image, _ = case
    got = filter_uninterest(image, jnp.ones((2, 12, 10, 1)), 2.0)
    np.testing.assert_array_equal(got, image)


def test_schedule_scales_with_the_resolution():
    assert radii_at(1024) == (16, 9, 4, 1)
    assert radii_at(256) == (4, 2.25, 1, 0.25)
    assert radii_at(64, radii=(4, 2), reference=128) == (2, 1)


def test_inputs_get_sharper_and_the_last_is_the_image_itself(case):
    image, mask = case
    inputs = filtered_inputs(image, mask, 3, (2.0, 0.5))
    assert len(inputs) == 3
    np.testing.assert_array_equal(inputs[0], filter_uninterest(image, mask, 2.0))
    np.testing.assert_array_equal(inputs[1], filter_uninterest(image, mask, 0.5))
    assert inputs[2] is image


def test_radii_of_zero_and_an_empty_schedule_filter_nothing(case):
    image, mask = case
    for radii in ((0.0,) * 4, ()):
        inputs = filtered_inputs(image, mask, 5, radii)
        assert len(inputs) == 5
        assert all(x is image for x in inputs)


def test_of_a_longer_schedule_the_end_is_used(case):
    image, mask = case
    short = filtered_inputs(image, mask, 2, (4.0, 2.0, 0.5))
    np.testing.assert_array_equal(short[0], filter_uninterest(image, mask, 0.5))
    assert filtered_inputs(image, mask, 1, (4.0, 2.0))[0] is image


def test_filter_is_constant_under_jit(case):
    image, mask = case
    got = jax.jit(lambda i, m: filter_uninterest(i, m, 1.0))(image, mask)
    np.testing.assert_allclose(got, filter_uninterest(image, mask, 1.0), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda i, m: filter_uninterest(i, m, 1.0, region="background"), "filter_region"),
        (lambda i, m: filter_uninterest(i, m, -1.0), "filter_radii"),
        (lambda i, m: filter_uninterest(i, m[:, :4], 1.0), "mask"),
        (lambda i, m: filtered_inputs(i, m, 5, (4.0, 2.0)), "filter_radii"),
        (lambda i, m: radii_at(64, radii=(-1.0,)), "filter_radii"),
        (lambda i, m: radii_at(64, radii=(1.0,), reference=0), "filter_reference"),
    ],
)
def test_bad_input_names_the_field(case, call, field):
    with pytest.raises(InputError, match=field):
        call(*case)


@pytest.mark.parametrize(("size", "largest"), [(64, 21.5), (256, 9.0)])
@pytest.mark.parametrize("radius", [1, 4, 9, 16])
def test_blur_is_near_pillows(golden_dir, goldenfill, size, largest, radius):
    """Pillow blurs with three box filters, rounded to 8 bits: equal to a few grey levels."""
    golden = np.load(golden_dir / "public/pil_image_ops.npz")
    recipe = {r["name"]: r for r in json.loads(str(golden["recipe_json"]))}[f"input:pil{size}"]
    image = goldenfill.image_u8(recipe["name"], *recipe["args"], **recipe["kwargs"])
    got = low_pass(jnp.asarray(image, jnp.float32)[None], float(radius))[0]
    difference = np.abs(got - golden[f"blur{size}_r{radius}"])
    assert difference.max() < largest
    assert difference.mean() < (1.0 if size == 256 else 2.0)
    border = 3 * radius
    if size > 2 * border:
        assert difference[border:-border, border:-border].max() < 4.0
