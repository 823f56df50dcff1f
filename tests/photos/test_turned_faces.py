"""Faces come out upright, whichever way up the photograph is."""

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.images import list_images, read_image
from interestyle_jax.photos.blazeface_detector import turned_back
from interestyle_jax.photos.face_mesh import EYE_CORNERS
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.ffhq_alignment import face_quad
from interestyle_jax.photos.landmarks import SURE, LiteRTLandmarker, find_face

SIZE = 512
ANGLES = range(0, 360, 15)


@pytest.fixture(scope="module")
def landmarker():
    return LiteRTLandmarker()


def is_right(face: Face, expected: np.ndarray) -> bool:
    """Within 15 % of the distance between the eyes, and upright within 10 degrees."""
    apart = np.hypot(*(expected[1] - expected[0]))
    (x, y), (u, v) = (quad[1] - quad[0] for quad in map(face_quad, (face.points, expected)))
    turn = np.rad2deg(np.arctan2(x * v - y * u, x * u + y * v))
    return np.hypot(*(face.points - expected).T).mean() < 0.15 * apart and abs(turn) < 10


def turned(portrait: np.ndarray, points: np.ndarray, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """A portrait and its points, turned counterclockwise."""
    image = Image.fromarray(portrait).rotate(angle, Image.Resampling.BICUBIC, fillcolor="gray")
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    middle = (len(portrait) - 1) / 2
    return np.asarray(image), (points - middle) @ np.array([[c, -s], [s, c]]) + middle


def count_right(landmarker, files, angle: int) -> int:
    right = 0
    for file in files:
        image = Image.fromarray(read_image(file))
        portrait = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
        straight, _ = find_face(portrait, landmarker, name=file.name)
        sideways, expected = turned(portrait, straight.points, angle)
        right += is_right(find_face(sideways, landmarker, name=file.name)[0], expected)
    return right


@pytest.mark.parametrize("angle", ANGLES)
def test_turned_portraits_are_found_upright(landmarker, shared_dir, angle):
    # In female_05 a wrong turn has a second "face" in the neck.
    names = ("female_05", "female_11", "male_01")
    files = [shared_dir / "portraits" / f"{name}.jpg" for name in names]
    assert count_right(landmarker, files, angle) == len(files)


@pytest.mark.slow
@pytest.mark.parametrize("angle", ANGLES)
def test_all_portraits_are_found_upright(landmarker, shared_dir, angle):
    files = list_images(shared_dir / "portraits")
    right = count_right(landmarker, files, angle)
    print(f"turned by {angle}: {right} of {len(files)} upright and right")
    assert len(files) == 40 and right == 40


def test_small_faces_are_found_on_their_heads(landmarker, shared_dir):
    # 5 % of the photograph's width; larger finds in wrong turns must not hide them.
    portrait = Image.fromarray(read_image(shared_dir / "portraits" / "male_04.jpg"))
    straight, _ = find_face(np.asarray(portrait), landmarker, name="straight")
    small = np.asarray(portrait.resize((222, 222), Image.Resampling.LANCZOS))
    rng = np.random.default_rng(0)
    for left, top in rng.integers(0, (1600 - 222, 1200 - 222), (2, 2)):
        patches = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        photo = np.array(patches.resize((1600, 1200), Image.Resampling.BICUBIC))
        photo[top : top + 222, left : left + 222] = small
        expected = (straight.points + 0.5) * (222 / 1024) - 0.5 + (left, top)
        face, count = find_face(np.rot90(photo, 2).copy(), landmarker, name="small")
        assert count == 1 and is_right(face, (1599, 1199) - expected)


def test_two_people_head_to_head_are_two_faces(landmarker, shared_dir):
    one, other = (
        Image.fromarray(read_image(shared_dir / "portraits" / f"{name}.jpg")).resize((400, 400))
        for name in ("male_01", "female_02")
    )
    photo = np.concatenate([np.asarray(one), np.rot90(np.asarray(other), 2)], axis=1)
    faces = landmarker(photo)
    assert len(faces) == 2 and all(face.score >= SURE for face in faces)
    down = [(f.points[2:].mean(0) - f.points[:2].mean(0))[1] > 0 for f in faces]
    assert sorted(down) == [False, True]


def test_an_unsure_face_counts_only_as_the_photograph_is_turned(landmarker, monkeypatch):
    class Found:
        def __init__(self, turn, left, score):
            self.box, self.turn, self.score = np.array([left, 0, left + 10, 10.0]), turn, score
            # The line of the eyes that is level in this turn.
            across = [(1, 0), (0, 1), (-1, 0), (0, -1)][turn]
            self.landmarks = np.array([(0, 0), across] + [(0, 0)] * 4)

    def mesh(image, box, eyes):
        points = np.linspace(box[:2], box[2:], 468)
        points[list(EYE_CORNERS)] = box[:2] + 5 + eyes
        return points, scores[box[0]]

    mesh.glance = mesh
    monkeypatch.setattr(landmarker, "_mesh", mesh)
    levels = {}
    monkeypatch.setattr(landmarker, "_detector", lambda image, level: levels.get(level, []))
    image = np.zeros((9, 9, 3), np.uint8)

    def found(*finds):
        return [Found(turn, left, 0.9) for turn, left in finds]

    scores = {0: 1.0, 20: 0.8, 40: 0.8, 60: 0.4, 80: 0.9}
    # The surest is on its head: of the unsure, those that are too.
    levels[0] = found((2, 0), (2, 20), (0, 40), (2, 60))
    assert [face.landmarks[0, 0] for face in landmarker(image)] == [0, 20]
    # None is sure: those of the photograph as it is.
    levels[0] = found((1, 20), (0, 40))
    assert [face.landmarks[0, 0] for face in landmarker(image)] == [40]
    # A sure face of another level goes before.
    levels[1] = found((3, 0))
    assert [face.landmarks[0, 0] for face in landmarker(image)] == [0]
    # Finds that cover each other are one face, in the turn of the greater presence.
    levels.clear()
    levels[0] = found((0, 80)) + found((2, 80.5))
    scores[80.5] = 1.0
    assert [face.landmarks[0, 0] for face in landmarker(image)] == [80.5]


@pytest.mark.parametrize("turn", range(4))
def test_turned_back_undoes_a_turn_of_the_square(turn):
    box, points = np.array([0.1, 0.2, 0.4, 0.3]), np.linspace(0, 1, 12).reshape(6, 2)

    def once(p):
        return np.stack([p[:, 1], 1 - p[:, 0]], axis=1)  # np.rot90's way.

    corners = box.reshape(2, 2)
    there = points
    for _ in range(turn):
        corners, there = once(corners), once(there)
    seen = np.concatenate([[0.7], corners.min(0), corners.max(0), there.ravel()])[None]
    np.testing.assert_allclose(turned_back(seen, turn)[0], [0.7, *box, *points.ravel()], atol=1e-12)
