"""The alignment to 112 pixels against least squares and a warp written out."""

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.photos.five_point_alignment import REFERENCE, align_face, similarity

RNG = np.random.default_rng(0)


def least_squares(source, target):
    """The four numbers of a similarity from its linear equations."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def test_similarity_is_the_least_squares_one():
    source, target = RNG.uniform(0, 100, (2, 5, 2))
    np.testing.assert_allclose(similarity(source, target), least_squares(source, target))


def test_similarity_recovers_a_turn():
    angle, scale, shift = 0.7, 2.5, np.array([30.0, -4.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(REFERENCE, REFERENCE @ turn.T + shift)
    np.testing.assert_allclose(matrix, np.hstack([turn, shift[:, None]]), atol=1e-9)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (np.zeros((5, 2)), np.zeros((4, 2)), "expected"),
        (np.zeros((5, 3)), np.zeros((5, 3)), "expected"),
        (np.ones((5, 2)), np.zeros((5, 2)), "all source points are one"),
    ],
)
def test_points_without_a_similarity_are_refused(source, target, message):
    with pytest.raises(InputError, match=message):
        similarity(source, target)


def test_landmarks_on_the_reference_leave_the_image_as_it_is():
    image = RNG.integers(0, 256, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(align_face(image, REFERENCE), image)
    moved = np.zeros((150, 140, 3), np.uint8)
    moved[20:132, 7:119] = image
    np.testing.assert_array_equal(align_face(moved, REFERENCE + [7, 20]), image)


@pytest.mark.parametrize("size", [112, 30])
def test_warp_is_the_bilinear_one_and_black_outside(size):
    image = RNG.integers(1, 256, (40, 50, 3), np.uint8)
    landmarks = REFERENCE[:, ::-1] * [-0.5, 0.4] + [50, -6] + RNG.normal(0, 1, (5, 2))
    matrix = least_squares(REFERENCE * size / 112, landmarks)
    found = align_face(image, landmarks, size=size)
    want = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            x, y = matrix @ [column, row, 1]
            for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= j < 40 and 0 <= i < 50:
                        want[row, column] += (1 - abs(x - i)) * (1 - abs(y - j)) * image[j, i]
    assert 0.1 < (want == 0).mean() < 0.9
    assert np.abs(found - want).max() <= 0.5 + 1e-6


def test_other_images_are_refused():
    with pytest.raises(InputError, match="expected uint8"):
        align_face(np.zeros((8, 8, 3), np.float32), REFERENCE)
