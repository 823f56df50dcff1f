"""BlazeFace's decoding on outputs written by hand, and the squares that find small faces."""

import numpy as np

from interestyle_jax.photos.blazeface_detector import (
    BlazeFaceDetector,
    anchors,
    decode,
    overlap,
    squares,
    weighted_suppression,
)


def test_anchors_are_the_cells_of_both_grids():
    centres = anchors()
    assert centres.shape == (896, 2)
    np.testing.assert_allclose(centres[:2], 1 / 32)
    np.testing.assert_allclose(centres[2], [3 / 32, 1 / 32])
    np.testing.assert_allclose(centres[512:518], 1 / 16)
    np.testing.assert_allclose(centres[-1], 15 / 16)


def test_decode_moves_boxes_and_points_by_their_anchor():
    raw, logits = np.zeros((896, 16)), np.full(896, -200.0)
    logits[[5, 600]] = [2.0, 0.1]
    raw[5] = [12.8, -12.8, 64, 32, *np.arange(12)]
    found = decode(raw, logits, anchors())
    assert found.shape == (2, 17)
    np.testing.assert_allclose(found[0, 0], 1 / (1 + np.exp(-2)))
    centre = anchors()[5] + [0.1, -0.1]
    np.testing.assert_allclose(
        found[0, 1:5], [*(centre - [0.25, 0.125]), *(centre + [0.25, 0.125])]
    )
    expected = anchors()[5] + np.arange(12).reshape(6, 2) / 128
    np.testing.assert_allclose(found[0, 5:].reshape(6, 2), expected)


def test_detections_of_one_face_are_averaged_by_score():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [100, 0, 100, 0.0]])
    scores = np.array([[0.6], [0.9], [0.7], [0.5]])
    points = np.arange(4)[:, None] + np.zeros(12)
    faces = weighted_suppression(np.hstack([scores, boxes, points]))
    np.testing.assert_allclose(faces[:, 0], [0.9, 0.7, 0.5])
    np.testing.assert_allclose(faces[0, 1:5], [0.6, 0, 10.6, 10])
    np.testing.assert_allclose(faces[0, 5], 0.6)
    np.testing.assert_allclose(faces[1, 1:5], boxes[2])
    assert weighted_suppression(np.zeros((0, 17))).shape == (0, 17)


def test_overlap_is_the_intersection_over_the_union():
    box = np.array([0.0, 0, 2, 2])
    others = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [0, 0, 1, 1]])
    np.testing.assert_allclose(overlap(box, others), [1, 1 / 3, 0, 1 / 4])


def test_squares_cover_the_image_and_overlap_by_half():
    for height, width, share in [(600, 800, 0.5), (600, 800, 0.25), (101, 1000, 0.25), (7, 5, 0.5)]:
        covered = np.zeros((height, width), int)
        for left, top, side in squares(height, width, share):
            covered[max(top, 0) : top + side, max(left, 0) : left + side] += 1
        assert covered.min() >= 1
        assert covered[height // 2, width // 2] >= 2
    assert list(squares(600, 800, 1.0)) == [(0, -100, 800)]


def test_nothing_is_found_where_nothing_is():
    detector = BlazeFaceDetector()
    for image in (np.zeros((300, 200, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)):
        assert [detector(image, level=level) for level in range(3)] == [[], [], []]
