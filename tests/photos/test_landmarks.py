"""Landmarks of synthetic portraits: near dlib's, steady under rotation, size and colour."""

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.photos.faces import Face, bounding_box
from interestyle_jax.photos.ffhq_alignment import face_quad
from interestyle_jax.photos.landmarks import (
    LiteRTLandmarker,
    find_face,
    make_landmarker,
)

# Means of dlib's eye contours and its corners of the mouth, read off with dlib 20.0.1 and
# shape_predictor_68_face_landmarks.dat.
DLIB = {
    "female_02": [[402.5, 327.7], [575.3, 314.3], [418.0, 492.0], [572.0, 480.0]],
    "male_01": [[393.5, 388.8], [532.8, 392.3], [384.0, 527.0], [529.0, 532.0]],
    "male_13": [[470.5, 380.2], [592.8, 379.3], [468.0, 512.0], [597.0, 509.0]],
}

# The contour of the eye that is left in the image, of Face Mesh's points.
EYE = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]


@pytest.fixture(scope="module")
def landmarker():
    return make_landmarker("litert")


@pytest.fixture(scope="module")
def portrait(shared_dir):
    return lambda name: read_image(shared_dir / "portraits" / f"{name}.jpg")


def distance(a, b):
    """Mean distance of two sets of points, as a share of the distance between the eyes of b."""
    return np.hypot(*(a - b).T).mean() / np.hypot(*(b[1] - b[0]))


def resized(image, size):
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


@pytest.mark.parametrize("name", DLIB)
def test_points_are_near_dlibs(portrait, landmarker, name):
    face, count = find_face(portrait(name), landmarker, name=name)
    assert count == 1 and face.score > 0.9 and face.landmarks.shape == (468, 2)
    assert distance(face.points, np.array(DLIB[name])) < 0.06
    np.testing.assert_array_equal(face.points[0], face.landmarks[EYE].mean(0))
    np.testing.assert_array_equal(face.points[2:], face.landmarks[[61, 291]])
    quad, exact = face_quad(face.points), face_quad(np.array(DLIB[name]))
    side = np.hypot(*(exact[3] - exact[0]))
    assert np.hypot(*(quad - exact).T).max() / side < 0.05


@pytest.mark.parametrize("angle", [25, -60, 90])
def test_a_turned_photograph_has_the_same_points_turned(portrait, landmarker, angle):
    upright = resized(portrait("male_01"), (512, 512))
    image = Image.fromarray(upright).rotate(angle, Image.Resampling.BICUBIC, fillcolor="gray")
    straight, _ = find_face(upright, landmarker, name="straight")
    turned, _ = find_face(np.asarray(image), landmarker, name="turned")
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    middle = 255.5
    expected = (straight.points - middle) @ np.array([[c, -s], [s, c]]) + middle
    assert distance(turned.points, expected) < 0.04


def test_grey_and_mirrored_photographs(portrait, landmarker):
    image = resized(portrait("female_02"), (512, 512))
    face, _ = find_face(image, landmarker, name="colour")
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    assert distance(find_face(grey, landmarker, name="grey")[0].points, face.points) < 0.03
    mirrored, _ = find_face(image[:, ::-1], landmarker, name="mirrored")
    back = (np.array([511, 0]) + mirrored.points * [-1, 1])[[1, 0, 3, 2]]
    assert distance(back, face.points) < 0.04


@pytest.mark.parametrize("side", [311, 222, 133])
def test_small_faces_are_found(portrait, landmarker, side):
    # The face is 0.36 of this portrait's width: 7, 5 and 3 % of the photograph's.
    small = resized(portrait("male_04"), (side, side))
    face, _ = find_face(portrait("male_04"), landmarker, name="large")
    rng = np.random.default_rng(side)
    for left, top in rng.integers(0, (1600 - side, 1200 - side), (4, 2)):
        patches = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        photo = np.array(patches.resize((1600, 1200), Image.Resampling.BICUBIC))
        photo[top : top + side, left : left + side] = small
        found, count = find_face(photo, landmarker, name="small")
        assert count == 1
        expected = (face.points + 0.5) * (side / 1024) - 0.5 + (left, top)
        assert distance(found.points, expected) < 0.08


def test_of_several_faces_the_largest_is_taken(portrait, landmarker):
    one, other = (resized(portrait(name), (400, 400)) for name in ("male_01", "female_02"))
    photo = np.full((600, 900, 3), 120, np.uint8)
    photo[:400, :400], photo[200:440, 450:690] = one, resized(other, (240, 240))
    face, count = find_face(photo, landmarker, name="two")
    assert count == 2
    assert face.points[:, 0].max() < 400


def test_of_equal_faces_the_most_central_is_taken():
    def face(x, size):
        points = np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]) * size + (x, 50)
        return Face(bounding_box(points), 0.9, points)

    image = np.zeros((100, 200, 3), np.uint8)
    found = [face(5, 20), face(90, 17), face(170, 20), face(100, 5)]
    chosen, count = find_face(image, lambda _: found, name="four")
    assert chosen is found[1] and count == 4


def test_no_face_is_an_error_that_names_the_image(landmarker):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    with pytest.raises(InputError, match=r"^beach.jpg: no face found in 120 x 90 pixels$"):
        find_face(noise, landmarker, name="beach.jpg")


def test_landmarkers_by_name():
    assert isinstance(make_landmarker("litert"), LiteRTLandmarker)
    with pytest.raises(InputError, match="landmarks: 'mtcnn', expected one of litert, dlib"):
        make_landmarker("mtcnn")
