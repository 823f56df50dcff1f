"""dlib's landmarks where dlib and its file are installed, and what is reported where not."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.photos.dlib_landmarks import FILE
from interestyle_jax.photos.landmarks import find_face, make_landmarker

NOT_INSTALLED = "dlib and its landmark file are not installed"


@pytest.fixture(scope="module")
def dlib_file():
    """The landmark file that the package face_recognition_models carries."""
    pytest.importorskip("dlib", reason=NOT_INSTALLED)
    models = importlib.util.find_spec("face_recognition_models")
    if models is None:
        pytest.skip(NOT_INSTALLED)
    return Path(models.origin).parent / "models" / FILE


def test_finds_the_points_that_litert_finds(dlib_file, shared_dir):
    image = read_image(shared_dir / "portraits" / "male_01.jpg")
    exact, count = find_face(image, make_landmarker("dlib", dlib_file=dlib_file), name="male_01")
    assert count == 1 and exact.landmarks.shape == (68, 2)
    face, _ = find_face(image, make_landmarker("litert"), name="male_01")
    distances = np.hypot(*(face.points - exact.points).T)
    assert distances.max() / np.hypot(*(exact.points[1] - exact.points[0])) < 0.1


def test_faces_on_their_heads_are_found_upright(dlib_file, shared_dir):
    image = read_image(shared_dir / "portraits" / "male_01.jpg")[::2, ::2].copy()
    landmarker = make_landmarker("dlib", dlib_file=dlib_file)
    straight, _ = find_face(image, landmarker, name="straight")
    turned, _ = find_face(np.rot90(image, 2).copy(), landmarker, name="turned")
    np.testing.assert_allclose(511 - turned.points, straight.points, atol=3)


def test_large_photographs_are_searched_small(dlib_file, shared_dir):
    image = read_image(shared_dir / "portraits" / "male_01.jpg")
    landmarker = make_landmarker("dlib", dlib_file=dlib_file)
    small, _ = find_face(image, landmarker, name="small")
    large, _ = find_face(image.repeat(2, 0).repeat(2, 1), landmarker, name="large")
    np.testing.assert_allclose((large.points - 0.5) / 2, small.points, atol=6)


def test_bad_files_are_told(dlib_file, tmp_path):
    broken = tmp_path / FILE
    broken.write_bytes(b"no landmarks")
    with pytest.raises(InputError, match="dlib cannot read it, expected shape_predictor_68"):
        make_landmarker("dlib", dlib_file=broken)
    with pytest.raises(InputError, match="no such file"):
        make_landmarker("dlib", dlib_file=tmp_path / "missing.dat")
    with pytest.raises(InputError, match="needs its file .* --dlib-file=PATH"):
        make_landmarker("dlib")


def test_the_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r"pip install 'interestyle_jax\[dlib\]'"):
        make_landmarker("dlib", dlib_file="any.dat")
