"""Figures of the paper: which avatars are shown, what is red, and the whole script."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.paper_figures import chosen, crop, main
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.evaluation.boundary import (
    face_regions,
    intersection_over_union,
    red_overlay,
    wrong_pixels,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_avatars(tmp_path_factory.mktemp("data") / "avatars", sizes={"test": 12}, workers=0)


def covered_avatars():
    face = np.zeros((5, 8, 8), bool)
    face[:, 2:6, 2:6] = True
    seen = face.copy()
    for i, columns in enumerate([1, 2, 2, 0, 3]):
        seen[i, :, 2 : 2 + columns] = False
    kinds = np.array(["net", "hand", "hand", "hand", "net"])
    return {"face_mask_full": face, "face_mask": seen, "obstacle": kinds}


def test_the_first_of_each_obstacle_is_shown():
    assert chosen(covered_avatars(), 6) == [0, 1]
    assert chosen(covered_avatars(), 1) == [0]


def test_a_crop_lies_around_what_is_covered():
    image = np.arange(64 * 64 * 3).reshape(64, 64, 3)
    covered = np.zeros((64, 64), bool)
    covered[30:34, 40:44] = True
    np.testing.assert_array_equal(crop(image, covered), image[18:46, 28:56])
    covered = np.roll(covered, -30, axis=0)
    np.testing.assert_array_equal(crop(image, covered), image[:28, 28:56])


def test_what_differs_is_red():
    class Reader:
        def __call__(self, images):
            self.regions = {"face": np.where(images[..., 0] > 0, 0.9, 0.1)}
            return self

    images = np.full((1, 4, 4, 3), -1.0, np.float32)
    images[0, 1] = 1
    faces = np.zeros((1, 4, 4), bool)
    faces[0, 1, :2] = True
    wrong = wrong_pixels(face_regions(Reader(), images), faces)
    assert wrong.sum() == 2 and wrong[0, 1, 2:].all()
    assert intersection_over_union(faces[0], faces[0] ^ wrong[0]) == 0.5
    assert intersection_over_union(np.zeros_like(faces[0]), np.zeros_like(faces[0])) is None
    shown = red_overlay(images[0], wrong[0])
    np.testing.assert_allclose(shown[1, 3], [1, -0.8, -0.8])
    np.testing.assert_array_equal(shown[0], images[0, 0])


@pytest.mark.slow
def test_the_script(data, reader, tmp_path):
    arguments = [f"--data={data}", "--weights=avatar_interestyle", "--name=IntereStyle"]
    arguments += ["--batch-size=4", "--rows=2", f"--out={tmp_path / 'out'}"]
    arguments += ["--raw-mask=avatar_interestyle", f"--reader={reader}"]
    assert main(arguments) == 0
    facts = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert facts["num_samples"] == 12 and len(facts["shown"]) == 2
    shares = facts["wrong_share_of_face"]
    assert shares["raw mask"] == shares["dilated mask"] > 0
    for name in ("obstacles.png", "dilation.png"):
        with Image.open(tmp_path / "out" / name) as drawn:
            assert drawn.size[0] > 300
    assert main([*arguments[:3], "--num-samples=12", f"--out={tmp_path / 'x'}", "--name=b"]) == 2
