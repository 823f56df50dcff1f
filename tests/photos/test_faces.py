"""The points by which faces are aligned, whoever found them."""

import numpy as np
import pytest

from interestyle_jax.photos.faces import Face, bounding_box

# Left eye, right eye, left and right corner of the mouth.
POINTS = np.array([[30.0, 40], [70, 42], [36, 80], [64, 82]])


def landmarks(count):
    """As a finder of `count` landmarks would have them."""
    found = np.full((count, 2), 50.0)
    places = {
        4: ([[0], [1]], [2, 3]),
        5: ([[0], [1]], [3, 4]),
        68: ([range(36, 42), range(42, 48)], [48, 54]),
        468: ([[33, 133, 159, 145], [263, 362, 386, 374]], [61, 291]),
    }
    eyes, mouth = places[count]
    for eye, point in zip(eyes, POINTS[:2], strict=True):
        found[list(eye)] = point
    found[mouth] = POINTS[2:]
    return found


@pytest.mark.parametrize("count", [4, 5, 68])
def test_points_are_the_eyes_and_the_corners_of_the_mouth(count):
    face = Face(np.array([20.0, 20, 80, 90]), 0.9, landmarks(count))
    np.testing.assert_allclose(face.points, POINTS)


def test_face_mesh_has_more_points_around_an_eye():
    points = Face(np.zeros(4), 0.9, landmarks(468)).points
    np.testing.assert_allclose(points[2:], POINTS[2:])
    # Four of the sixteen of a contour lie at the eye here, the others in the middle.
    np.testing.assert_allclose(points[:2], 50 + (POINTS[:2] - 50) / 4)


def test_blazeface_has_no_corners_of_the_mouth():
    with pytest.raises(ValueError, match="landmarks: 6, which have no points to align by"):
        _ = Face(np.zeros(4), 0.9, np.zeros((6, 2))).points


def test_bounding_box():
    np.testing.assert_array_equal(bounding_box(POINTS), [30, 40, 70, 82])
