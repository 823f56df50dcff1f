"""FFHQ alignment against the recipe written out, and under rotation, scale, borders and sizes."""

import numpy as np
import pytest
from scipy import ndimage

from interestyle_jax.errors import InputError
from interestyle_jax.photos.ffhq_alignment import _gaussian, align, face_quad

POINTS = np.array([[40.0, 50.0], [70.0, 46.0], [47.0, 82.0], [70.0, 79.0]])


def waves(x, y):
    """A smooth image without an edge: [...] positions -> [..., 3] in [0, 255]."""
    tones = [np.sin(x / 9) * np.cos(y / 14), np.sin((x + y) / 17), np.cos((x - 2 * y) / 21)]
    return 127.5 + 120 * np.stack(tones, axis=-1)


def drawn(height, width, to_waves=lambda x, y: (x, y)):
    y, x = np.mgrid[:height, :width].astype(float)
    return np.rint(waves(*to_waves(x, y))).astype(np.uint8)


def turn(angle, scale=1.0):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s], [s, c]])


def lanczos(samples, count):
    """[n, ...] -> [count, ...] by a Lanczos window of three lobes, widened to the reduction."""
    step = samples.shape[0] / count
    centres = (np.arange(count) + 0.5) * step
    t = (np.arange(samples.shape[0]) + 0.5 - centres[:, None]) / step
    weights = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0)
    weights /= weights.sum(1, keepdims=True)
    return np.tensordot(weights, samples, 1)


def reference(photo, points, size):
    """The recipe for faces that need no shrinking, on whole float images."""
    eyes, lips = points[:2].mean(0), points[2:].mean(0)
    apart = points[1] - points[0]
    x = apart + turn(-np.pi / 2) @ (lips - eyes)
    x *= max(2 * np.linalg.norm(apart), 1.8 * np.linalg.norm(lips - eyes)) / np.linalg.norm(x)
    y = turn(np.pi / 2) @ x
    centre = eyes + (lips - eyes) / 10
    corners = np.array([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    side = 2 * np.linalg.norm(x)
    assert side / size / 2 < 2
    border = max(round(side / 10), 3)
    height, width = photo.shape[:2]
    edges = np.array([*np.floor(corners.min(0)), *np.ceil(corners.max(0))]).astype(int)
    keep = np.array([*(edges[:2] - border), *(edges[2:] + border)])
    cropped = np.clip(keep, 0, [width, height, width, height])
    image = photo[cropped[1] : cropped[3], cropped[0] : cropped[2]].astype(float)
    missing = np.abs(keep - cropped)
    origin = cropped[:2].astype(float)
    if missing.max() > border - 4:
        left, top, right, bottom = np.maximum(missing, round(side * 0.3))
        image = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="reflect")
        h, w = image.shape[:2]
        row, column = np.mgrid[:h, :w]
        x = np.minimum(column / left, (w - 1 - column) / right)
        y = np.minimum(row / top, (h - 1 - row) / bottom)
        inward = np.minimum(x, y)
        outside = (1 - inward)[..., None]
        soft = ndimage.gaussian_filter(image, (0.02 * side, 0.02 * side, 0))
        image = image + (soft - image) * np.clip(3 * outside + 1, 0, 1)
        grey = np.median(image, axis=(0, 1))
        image = np.rint(image + (grey - image) * np.clip(outside, 0, 1))
        origin -= (left, top)
    fine = 4 * size
    u = (np.arange(fine) + 0.5) / fine
    across, down = corners[3] - corners[0], corners[1] - corners[0]
    position = corners[0] + u[None, :, None] * across + u[:, None, None] * down - origin
    samples = np.stack(
        [
            ndimage.map_coordinates(
                image[..., c], [position[..., 1], position[..., 0]], order=1, mode="nearest"
            )
            for c in range(3)
        ],
        axis=-1,
    )
    aligned = lanczos(lanczos(samples, size).swapaxes(0, 1), size).swapaxes(0, 1)
    return np.clip(aligned, 0, 255), corners


@pytest.mark.parametrize(
    ("shape", "shift", "size"),
    [
        ((150, 140), (0, 0), 64),
        ((420, 400), (140, 160), 64),
        ((150, 140), (-20, -30), 64),
        ((100, 260), (140, 0), 48),
        ((420, 400), (140, 160), 256),
    ],
    ids=["padded", "inside", "corner", "below", "enlarged"],
)
def test_equals_the_recipe(shape, shift, size):
    noise = np.random.default_rng(0).integers(-20, 20, (*shape, 3))
    image = np.clip(drawn(*shape) + noise, 0, 255).astype(np.uint8)
    points = POINTS + shift
    expected, corners = reference(image, points, size)
    aligned, quad = align(image, points, size=size)
    assert aligned.shape == (size, size, 3) and aligned.dtype == np.uint8
    np.testing.assert_allclose(quad, corners, atol=1e-9)
    np.testing.assert_allclose(face_quad(points), corners, atol=1e-9)
    difference = np.abs(aligned - expected)
    # Three roundings to 8 bits, by filters with fixed-point weights.
    assert difference.max() <= 3 and difference.mean() < 0.6


@pytest.mark.parametrize(("angle", "scale"), [(0.4, 1.0), (-1.3, 1.0), (3.0, 1.0), (0.2, 1.9)])
def test_a_turned_and_scaled_image_gives_the_same_face(angle, scale):
    middle = np.array([300.0, 300.0])
    back = np.linalg.inv(turn(angle, scale))
    shift = np.array([60.0, 60.0])

    def to_waves(x, y):
        moved = np.stack([x, y], axis=-1) - middle
        return np.moveaxis(moved @ back.T + shift, -1, 0)

    straight = drawn(600, 600, lambda x, y: (x - 240, y - 240))
    turned = drawn(600, 600, to_waves)
    expected, _ = align(straight, POINTS + 240, size=64)
    found, quad = align(turned, (POINTS - shift) @ turn(angle, scale).T + middle, size=64)
    np.testing.assert_allclose(found.astype(int), expected, atol=4)
    np.testing.assert_allclose(
        quad, (face_quad(POINTS) - shift) @ turn(angle, scale).T + middle, atol=1e-9
    )


def test_a_quarter_turn_is_the_same_to_the_bit_or_nearly():
    image = np.random.default_rng(1).integers(0, 256, (150, 140, 3), np.uint8)
    turned = np.rot90(image, k=-1)
    points = np.stack([149 - POINTS[:, 1], POINTS[:, 0]], axis=1)
    a, b = align(image, POINTS, size=64)[0], align(turned, points, size=64)[0]
    assert np.abs(a.astype(int) - b).max() <= 3


def test_a_shrunk_image_shows_the_quad_that_is_returned():
    points = POINTS * 6
    image = drawn(900, 800, lambda x, y: (x / 6, y / 6))
    aligned, quad = align(image, points, size=32)
    assert 0.5 < np.abs(quad - face_quad(points)).max() < 8
    u = (np.arange(32) + 0.5) / 32
    across, down = quad[3] - quad[0], quad[1] - quad[0]
    position = quad[0] + u[None, :, None] * across + u[:, None, None] * down
    expected = waves(*np.moveaxis(position / 6, -1, 0))
    inside = ((position > 60) & (position < (740, 840))).all(-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(aligned[inside], expected[inside], atol=6)


def test_what_lies_outside_is_padded_or_black():
    image = np.full((100, 100, 3), 200, np.uint8)
    points = POINTS - (20, 45)
    padded, quad = align(image, points, size=64)
    black, same = align(image, points, size=64, padding=False)
    np.testing.assert_array_equal(quad, same)
    assert quad[:, 1].min() < -20
    assert (np.abs(padded.astype(int) - 200) <= 1).all()
    assert (black[0] == 0).all() and (black[40, 32] == 200).all()


def test_padding_goes_on_without_a_seam():
    image = drawn(150, 140)
    padded, quad = align(image, POINTS - (0, 30), size=256)
    assert quad[:, 1].min() < -10
    assert np.abs(np.diff(padded.astype(int), axis=0)).max() < 25


@pytest.mark.parametrize("scale", [0.05, 0.5])
def test_tiny_faces_are_enlarged(scale):
    image = drawn(60, 60)
    aligned, quad = align(image, 20 + POINTS * scale, size=64)
    assert np.hypot(*(quad[3] - quad[0])) < 130 * scale
    centre = quad.mean(0)
    np.testing.assert_allclose(aligned[31:33, 31:33].mean((0, 1)), waves(*centre), atol=12)


def test_a_image_of_one_row_is_no_trouble():
    aligned, _ = align(np.full((1, 300, 3), 90, np.uint8), POINTS - (0, 55), size=32)
    assert (np.abs(aligned.astype(int) - 90) <= 1).all()


@pytest.mark.parametrize("sigma", [0.3, 2.0, 9.0, 80.0])
def test_blur_is_scipys(sigma):
    image = np.random.default_rng(2).uniform(0, 255, (61, 90)).astype(np.float32)
    expected = ndimage.gaussian_filter(image, sigma)
    np.testing.assert_allclose(_gaussian(image, sigma), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("image", "points", "options", "message"),
    [
        (np.zeros((9, 9), np.uint8), POINTS, {}, r"uint8 \[9, 9\], expected uint8 \[H, W, 3\]"),
        (np.zeros((9, 9, 4), np.uint8), POINTS, {}, "expected uint8"),
        (np.zeros((9, 9, 3), np.float32), POINTS, {}, "float32"),
        (drawn(99, 99), POINTS[:3], {}, "four finite points"),
        (drawn(99, 99), POINTS * np.nan, {}, "four finite points"),
        (drawn(99, 99), POINTS * 0, {}, "no direction"),
        (drawn(99, 99), POINTS + 900, {}, "outside of the image"),
        (drawn(99, 99), POINTS, {"size": 4096}, "size: 4096, expected 16 to 2048"),
        (drawn(99, 99), POINTS, {"size": 8}, "expected 16 to 2048"),
    ],
)
def test_bad_input(image, points, options, message):
    with pytest.raises(InputError, match=message):
        align(image, points, **options)
