"""Paste-back: the photograph returns, nothing outside changes, edges and masks are soft."""

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.photos.ffhq_alignment import align
from interestyle_jax.photos.paste_back import paste_back
from interestyle_jax.photos.quads import quad_matrix, square_quad

POINTS = np.array([[90.0, 80.0], [120.0, 76.0], [97.0, 112.0], [120.0, 109.0]])


def photograph(height=230, width=220):
    y, x = np.mgrid[:height, :width].astype(float)
    tones = [np.sin(x / 7) * np.cos(y / 9), np.sin((x + y) / 8), np.cos((x - 2 * y) / 16)]
    return np.rint(127.5 + 120 * np.stack(tones, axis=-1)).astype(np.uint8)


def unit_positions(photo, quad):
    """u, v of the pixels' centres."""
    matrix = quad_matrix(quad)
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    return np.tensordot(
        np.linalg.inv(matrix[:, :2]), np.stack([x, y]) - matrix[:, 2, None, None], 1
    )


def inside_of(photo, quad):
    u, v = unit_positions(photo, quad)
    return (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)


@pytest.mark.parametrize("size", [64, 128, 300, 1024])
@pytest.mark.parametrize("feather", [0.0, 0.1])
def test_the_aligned_face_gives_the_photograph_back(size, feather):
    photo = photograph()
    aligned, quad = align(photo, POINTS, size=size)
    pasted = paste_back(photo, aligned, quad, feather=feather)
    outside = ~inside_of(photo, quad)
    assert 0.3 < outside.mean() < 0.9
    np.testing.assert_array_equal(pasted[outside], photo[outside])
    difference = np.abs(pasted.astype(int) - photo)[~outside]
    limit, mean = (20, 4) if size == 64 else (9, 1)
    assert difference.max() <= limit and difference.mean() < mean


@pytest.mark.parametrize("shape", ["square", "ellipse"])
def test_the_middle_is_pasted_and_the_edge_is_soft(shape):
    photo = np.full((200, 200, 3), 40, np.uint8)
    quad = square_quad((97.3, 102.1), (50.0, 12.0))
    pasted = paste_back(photo, np.full((32, 32, 3), 240, np.uint8), quad, feather=0.2, shape=shape)
    inside = inside_of(photo, quad)
    u, v = unit_positions(photo, quad) - 0.5
    assert (pasted[~inside] == 40).all()
    assert (pasted[np.hypot(u, v) < 0.29] == 240).all()
    if shape == "ellipse":
        assert (pasted[np.hypot(u, v) > 0.5] == 40).all()
    steps = [np.abs(np.diff(pasted.astype(int), axis=axis)).max() for axis in (0, 1)]
    assert 4 < max(steps) < 25


def test_a_hard_edge_pastes_all_that_lies_inside():
    photo = np.full((60, 60, 3), 40, np.uint8)
    quad = square_quad((30.2, 28.9), (15.0, 9.0))
    pasted = paste_back(photo, np.full((16, 16, 3), 240, np.uint8), quad, feather=0)
    inside = inside_of(photo, quad)
    assert (pasted[inside] == 240).all() and (pasted[~inside] == 40).all()


def test_fine_images_are_averaged_over_the_pixel():
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    image = np.repeat(checks.astype(np.uint8)[..., None], 3, axis=-1)
    photo = np.zeros((80, 80, 3), np.uint8)
    quad = square_quad((40.3, 39.6), (19.0, 7.0))
    pasted = paste_back(photo, image, quad, feather=0)
    inside = inside_of(photo, quad)
    assert np.abs(pasted[inside].astype(int) - 127.5).max() < 25


def test_a_coarse_image_lands_at_its_place():
    # A ramp tells positions: u and v of every pixel can be read off it.
    y, x = np.mgrid[:100, :100] + 0.5
    image = np.stack([x * 2.5, y * 2.5, 0 * x], axis=-1).round().astype(np.uint8)
    photo = np.zeros((300, 300, 3), np.uint8)
    quad = square_quad((150.4, 149.7), (80.0, -30.0))
    pasted = paste_back(photo, image, quad, feather=0)
    u, v = unit_positions(photo, quad)
    middle = (np.abs(u - 0.5) < 0.48) & (np.abs(v - 0.5) < 0.48)
    np.testing.assert_allclose(pasted[middle][:, 0], (u * 250)[middle], atol=1.5)
    np.testing.assert_allclose(pasted[middle][:, 1], (v * 250)[middle], atol=1.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_only_the_mask_is_pasted(dtype):
    photo = np.full((120, 120, 3), 40, np.uint8)
    quad = square_quad((60, 60), (40.0, 0.0))
    mask = np.zeros((64, 64, 1), dtype)
    mask[:, 32:] = 255 if dtype == np.uint8 else 1
    image = np.full((64, 64, 3), 240, np.uint8)
    pasted = paste_back(photo, image, quad, mask=mask, feather=0.1)
    left = np.arange(120) <= 58
    assert (pasted[:, left] == 40).all()
    assert (pasted[40:80, 75:85] == 240).all()
    assert np.abs(np.diff(pasted[60, :, 0].astype(int))).max() < 60
    nothing = paste_back(photo, image, quad, mask=np.zeros((64, 64)))
    np.testing.assert_array_equal(nothing, photo)
    everything = paste_back(photo, image, quad, mask=np.ones((64, 64)))
    np.testing.assert_array_equal(everything, paste_back(photo, image, quad))


def test_quads_that_reach_beyond_the_photograph():
    photo = photograph(60, 50)
    image = np.full((40, 40, 3), 250, np.uint8)
    pasted = paste_back(photo, image, square_quad((10, 5), (40.0, 8.0)), feather=0)
    assert (pasted[5, 10] == 250).all() and (pasted[59, 49] == photo[59, 49]).all()
    away = paste_back(photo, image, square_quad((900, 5), (40.0, 8.0)))
    np.testing.assert_array_equal(away, photo)


def test_the_photograph_itself_is_not_changed():
    photo = photograph()
    before = photo.copy()
    paste_back(photo, photo[:64, :64], square_quad((100, 100), (30, 3)))
    np.testing.assert_array_equal(photo, before)


QUAD = square_quad((5, 5), (3, 1))
SMALL = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((SMALL[..., 0], SMALL, QUAD), {}, "photo: uint8"),
        ((SMALL, SMALL / 2, QUAD), {}, "image: float64"),
        ((SMALL, SMALL[:4], QUAD), {}, "expected a square"),
        ((SMALL, SMALL, QUAD[:3]), {}, "four finite corners"),
        ((SMALL, SMALL, QUAD * 0), {}, "has no area"),
        ((SMALL, SMALL, QUAD), {"feather": 0.6}, "feather: 0.6, expected a share from 0 to 0.5"),
        ((SMALL, SMALL, QUAD), {"feather": float("nan")}, "feather: nan"),
        ((SMALL, SMALL, QUAD), {"shape": "star"}, "shape: 'star', expected one of square, ellipse"),
        ((SMALL, SMALL, QUAD), {"mask": np.ones((4, 4, 1))}, r"mask: shape \[4, 4, 1\]"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(InputError, match=message):
        paste_back(*arguments, **options)
