"""Numbers of a face's landmarks: right on a face made of points, and steady under a turn."""

import numpy as np
import pytest

from interestyle_jax.photos.face_geometry import NAMES, face_geometry
from interestyle_jax.photos.faces import Face


def make_face(**moved):
    """An upright face of 200 by 240 pixels, whose eyes are 80 apart."""
    points = np.zeros((468, 2))
    places = {
        1: (100, 120), 234: (0, 100), 454: (200, 100), 152: (100, 240), 10: (100, 0),
        13: (100, 180), 14: (100, 180), 61: (70, 180), 291: (130, 180),
        33: (40, 100), 133: (80, 100), 362: (120, 100), 263: (160, 100),
        159: (60, 95), 145: (60, 105), 386: (140, 95), 374: (140, 105),
        105: (60, 75), 334: (140, 75),
    }  # fmt: skip
    for i, place in places.items():
        points[i] = place
    for i, offset in moved.items():
        points[int(i[1:])] += offset
    return Face(np.zeros(4), 1.0, points)


def test_an_upright_face():
    found = face_geometry(make_face())
    expected = dict.fromkeys(NAMES, 0.0)
    expected |= {"smile_width": 60 / 80, "eyes_open": 10 / 40, "brow_height": 20 / 80}
    assert list(found) == list(NAMES)
    assert found == pytest.approx(expected)


def test_what_moves_changes_its_number_alone():
    def changed(**moved):
        before, after = face_geometry(make_face()), face_geometry(make_face(**moved))
        return {x: after[x] - before[x] for x in NAMES if abs(after[x] - before[x]) > 1e-9}

    assert changed(p1=(30, 0)) == pytest.approx({"yaw": 0.3})
    assert changed(p1=(0, 12)) == pytest.approx({"pitch": 0.1})
    assert changed(p14=(0, 16)) == pytest.approx({"mouth_open": 0.2})
    assert changed(p61=(-8, 0), p291=(8, 0)) == pytest.approx({"smile_width": 0.2})
    assert changed(p105=(0, -8), p334=(0, -8)) == pytest.approx({"brow_height": 0.1})
    assert changed(p145=(0, 4), p374=(0, 4)) == pytest.approx({"eyes_open": 0.1})


def test_size_and_turn_change_the_roll_alone():
    face = make_face(p1=(20, 10), p14=(0, 16))
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = Face(face.box, 1.0, 1.7 * face.landmarks @ turn.T + 5)
    before, after = face_geometry(face), face_geometry(turned)
    assert after == pytest.approx(before | {"roll": 25.0})


def test_other_landmarks_are_refused():
    with pytest.raises(ValueError, match=r"landmarks: expected \[468, 2\], got \(68, 2\)"):
        face_geometry(Face(np.zeros(4), 1.0, np.zeros((68, 2))))
