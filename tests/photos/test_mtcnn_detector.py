"""MTCNN's stages by their definition, and the real networks on images of (synthetic) people."""

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.photos.five_point_alignment import REFERENCE, align_face
from interestyle_jax.photos.mtcnn_detector import (
    FaceDetector,
    non_maximum_suppression,
    patch,
    pyramid,
    shifted,
    squares,
)
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def mtcnn(shared_dir, tmp_path_factory):
    """The official files, converted as they are."""
    out = tmp_path_factory.mktemp("mtcnn") / "weights"
    files = [shared_dir / "official" / f"{name}.npy" for name in ("pnet", "rnet", "onet")]
    convert(files, out)
    return load_weights(out)


def overlap(a, b, of_smaller):
    """Shared pixels of two boxes, counted, over those of the union or of the smaller."""
    pixels = [
        {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)} for x1, y1, x2, y2 in (a, b)
    ]
    whole = min(map(len, pixels)) if of_smaller else len(pixels[0] | pixels[1])
    return len(pixels[0] & pixels[1]) / whole


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_is_its_definition(of_smaller):
    first = RNG.integers(0, 12, (40, 2))
    boxes = np.hstack([first, first + RNG.integers(0, 12, (40, 2))])
    scores = RNG.permutation(40) / 40
    want = []
    for i in np.argsort(-scores):
        if all(overlap(boxes[i], boxes[j], of_smaller) <= 0.4 for j in want):
            want.append(i)
    found = non_maximum_suppression(boxes, scores, 0.4, of_smaller=of_smaller)
    assert found.tolist() == want
    assert 1 < len(want) < 40


def test_boxes_are_moved_squared_and_cut():
    box = np.array([[10.0, 20.0, 29.0, 59.0]])
    moved = shifted(box, np.array([[0.1, 0.5, -0.1, 0.0]]))
    np.testing.assert_allclose(moved, [[12, 40, 27, 59]])
    np.testing.assert_array_equal(squares(box), [[0, 20, 39, 59]])
    assert len(squares(np.array([[5.0, 5.0, 1.0, 1.0]]))) == 0
    image = RNG.integers(1, 256, (30, 30, 3), np.uint8)
    cut = patch(image, np.array([-2, 25, 9, 36]), 12)
    np.testing.assert_array_equal(cut[:5, 2:], image[25:30, :10])
    assert not cut[5:].any() and not cut[:, :2].any()


def test_pyramid_reaches_from_the_smallest_face_to_the_image():
    scales = list(pyramid(300, 200, 20.0))
    assert scales[0] == 12 / 20
    np.testing.assert_allclose(np.diff(np.log(scales)), np.log(0.707))
    assert scales[-1] * 200 > 12 >= scales[-1] * 200 * 0.707
    assert list(pyramid(20, 400, 20.0)) == []


def test_a_cell_becomes_a_box_of_the_image(mtcnn, monkeypatch):
    """One cell fires on the first level; the later networks say yes and point at the middle."""
    detector = FaceDetector(mtcnn, min_face_size=24)
    image = np.zeros((60, 80, 3), np.uint8)

    def run(name, x):
        if name == "pnet":
            shape = tuple((side - 10 + 1) // 2 for side in x.shape[1:3])
            probabilities = np.zeros((1, *shape, 2))
            if x.shape[1:3] == (30, 40):
                probabilities[0, 3, 5, 1] = 0.2
                probabilities[0, 0, 0, 0] = 0.9
            return [np.zeros((1, *shape, 4)), probabilities]
        yes = np.tile([0.1, 0.9], (len(x), 1))
        offsets = np.zeros((len(x), 4))
        return [offsets, yes] if name == "rnet" else [np.full((len(x), 10), 0.5), offsets, yes]

    monkeypatch.setattr(detector, "_run", run)
    (face,) = detector(image)
    # Columns 2 * 5 + 1 to 12 further on, rows 2 * 3 + 1, in an image of half the size.
    np.testing.assert_array_equal(face.box, [22, 14, 46, 38])
    np.testing.assert_allclose(face.landmarks, np.tile([34.5, 26.5], (5, 1)))
    assert face.score == 0.9


def check_face(faces, image):
    """Landmarks in the order of a face, and an alignment that puts them near the reference."""
    assert faces
    face = faces[0]
    assert face.score > 0.9
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert np.all(face.landmarks > face.box[:2]) and np.all(face.landmarks < face.box[2:])
    assert align_face(image, face.landmarks).shape == (112, 112, 3)
    return face


@pytest.mark.parametrize("name", ["female_04", "male_01"])
def test_real_networks_find_the_face(mtcnn, shared_dir, name):
    detector = FaceDetector(mtcnn)
    with Image.open(shared_dir / "portraits" / f"{name}.jpg") as file:
        image = np.asarray(file.convert("RGB").resize((160, 160)))
    # All that goes to the device is sent as such, the weights once.
    with jax.transfer_guard("disallow"):
        faces = detector(image)
    face = check_face(faces, image)
    turned = np.ascontiguousarray(image[:, ::-1])
    mirrored = check_face(detector(turned), turned)
    # Left and right change places; the same face is found within a few pixels of 160.
    swapped = mirrored.landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [159, 0]
    assert np.abs(swapped - face.landmarks).max() < 4


def test_aligned_faces_have_their_landmarks_on_the_reference(mtcnn, shared_dir):
    """Found again in the aligned image, within what a face differs from the reference."""
    detector = FaceDetector(mtcnn)
    with Image.open(shared_dir / "portraits" / "female_04.jpg") as file:
        image = np.asarray(file.convert("RGB").resize((160, 160)))
    aligned = align_face(image, detector(image)[0].landmarks, size=160)
    again = detector(aligned)[0].landmarks * 112 / 160
    assert np.abs(again - REFERENCE).max() < 6


def test_images_without_a_face_give_none(mtcnn):
    detector = FaceDetector(mtcnn)
    assert detector(np.full((64, 64, 3), 128, np.uint8)) == []
    assert detector(np.zeros((8, 8, 3), np.uint8)) == []


def test_wrong_inputs_are_named(mtcnn):
    with pytest.raises(InputError, match=r"expected uint8 \[H, W, 3\]"):
        FaceDetector(mtcnn)(np.zeros((64, 64, 3), np.float32))
    with pytest.raises(InputError, match="min_face_size: expected a positive number"):
        FaceDetector(mtcnn, min_face_size=0)


@pytest.mark.slow
def test_real_networks_find_a_face_in_every_portrait(mtcnn, shared_dir):
    detector = FaceDetector(mtcnn)
    for path in sorted((shared_dir / "portraits").glob("*.jpg")):
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB").resize((512, 512)))
        check_face(detector(image), image)
