"""Edits of avatars, measured: the whole script at a small size, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from experiments.editing_figures import main, read_avatars
from experiments.editing_measures import SHARES, agreement, covered_difference, random_step
from experiments.editing_table import markdown
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.evaluation.attributes import Attributes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    sizes = {"validation": 2, "test": 3}
    return write_avatars(tmp_path_factory.mktemp("data") / "avatars", sizes=sizes, workers=0)


def write_direction(folder, **extra):
    folder.mkdir(exist_ok=True)
    array = np.random.default_rng(0).normal(size=512).astype(np.float32)
    generator = ij.load("avatar_interestyle").generator_fingerprint
    limits = {"default_range": (-1.0, 1.0), "generator": generator}
    save_direction(folder / "beard.npz", Direction("beard", "w", array, extra=extra, **limits))
    return folder


def test_the_face_under_an_obstacle():
    a, b = np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3))
    covered = np.zeros((2, 4, 4), bool)
    assert covered_difference(a, b, covered) is None
    covered[0, 0, 0] = covered[1, 1, 1] = True
    b[0, 0, 0], b[0, 3, 3] = 0.5, 2
    assert covered_difference(a, b, covered) == 0.25


def test_steps_and_readings_to_compare_with():
    step = random_step((1, 2), 3.0, 16)
    np.testing.assert_allclose(np.linalg.norm(step), 3, rtol=1e-6)
    assert np.array_equal(step, random_step((1, 2), 3.0, 16))
    assert not np.allclose(step, random_step((1, 3), 3.0, 16))
    drawn, read = (
        Attributes({"beard": {"none": x, "chin": 1 - x}}, {}, {})
        for x in (np.array([0.9, 0.1, 0.2, 0.7]), np.array([0.6, 0.6, 0.2, 0.7]))
    )
    assert agreement(drawn, read) == {"beard": 0.75}


def test_the_table():
    edit = {"target": "beard", "reached": 0.9, "changed": {"mouth": 0.1, "eyes": 0.3}}
    edit |= {"mean_changed": 0.2, "random_changed": {"mouth": 0.2, "eyes": 0.3}, "covered_l1": 0.5}
    edit |= {"range_end": {"strength": 3.0, "reached": 0.8, "mean_changed": 0.1}}
    edit["surely_changed"] = {"mouth": {"share": 0.02, "images": 50}}
    in_s = edit | {"reached": None, "random_changed": None}
    in_s["surely_changed"] = {
        "mouth": {"share": 0.06, "images": 50},
        "eyes": {"share": None, "images": 0},
    }
    one = {"edits": {"beard": edit, "text": in_s}, "covered_l1_unedited": 0.4}
    one["read_as_drawn"] = {"mouth": 0.35}
    metrics = {"command": "c", "num_images": 3, "num_validation": 2, "encoders": {"A": one}}
    table = markdown(metrics | {"reader_accuracy": {"mouth": 0.9}})
    for line in (
        "| beard | beard | 90.0% (20.0%, 30.0%; 25.0%) |",
        "| text | beard | – (20.0%, 30.0%; –) |",
        "| mean | | 90.0% (20.0%) |",
        "| beard | 3 | 80.0% (10.0%) |",
        "| mouth | 10.0% | 20.0% | 4.0%, 6.0% | 35.0% |",
        "| eyes | 30.0% | 30.0% | – | – |",
        "| none | 0.4000 |",
    ):
        assert line in table.splitlines()


def test_avatars_are_read_with_what_is_covered(data):
    avatars = read_avatars(data, "test", 3, 2)
    assert avatars["image"].shape == (3, 64, 64, 3) and avatars["id"].tolist() == [0, 1, 2]
    different = np.abs(avatars["image"] - avatars["clean"]).max(-1) > 0.1
    assert avatars["covered"].any() and different[avatars["covered"]].mean() > 0.8


def test_bad_input(data, reader, tmp_path, capsys):
    arguments = [f"--data={data}", f"--reader={reader}", f"--out={tmp_path / 'out'}"]
    arguments += ["--num-samples=3", "--num-validation=2"]
    own = "--weights=a=avatar_interestyle"
    folder = write_direction(tmp_path / "directions")
    for bad, message in [
        ([own], "--shown: expected numbers below"),
        (["--weights=avatar_interestyle", "--shown=0"], "--weights: expected NAME=DIR"),
        ([own, own, "--shown=0"], "--weights: expected a name of its own"),
        ([own, "--shown=0"], "--directions, --text: expected one of them"),
        ([own, "--shown=0", f"--directions={tmp_path}"], "holds no directions"),
        ([own, "--shown=0", f"--directions={folder}"], "with attribute and range"),
        ([own, "--shown=0", "--text=a beard"], "--text: 'a beard', expected TEXT=ATTRIBUTE"),
    ]:
        assert main([*arguments, *bad]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_script(data, reader, tmp_path):
    folder = write_direction(tmp_path / "directions", attribute="beard")
    arguments = [f"--data={data}", f"--reader={reader}", f"--out={tmp_path / 'out'}"]
    arguments += ["--weights=IntereStyle=avatar_interestyle", "--weights=Other=avatar_interestyle"]
    arguments += ["--num-samples=3", "--num-validation=2", "--shown=0,2", "--batch-size=2"]
    assert main([*arguments, f"--directions={folder}"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    own, other = metrics["encoders"]["IntereStyle"], metrics["encoders"]["Other"]
    assert own == other and metrics["num_images"] == 3
    beard = own["edits"]["beard"]
    assert beard["target"] == "beard" and beard["strength"] in SHARES
    assert set(beard["changed"]) == {
        *("clothes", "eyebrows", "eyes", "hair", "mouth", "rear_hair", "tilt", "zoom"),
        *("skin_colour", "hair_colour", "clothes_colour"),
    }
    assert beard["covered_l1"] > 0 and beard["range_end"]["strength"] == 1
    assert set(beard["random_changed"]) == set(beard["changed"])
    assert set(own["read_as_drawn"]) == set(metrics["reader_accuracy"])
    assert all(0 <= x <= 1 for x in metrics["reader_accuracy"].values())
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| edit | target | IntereStyle | Other |" in table and "| beard | beard |" in table
    for name in ("edits", "mixing", "sefa"):
        with Image.open(tmp_path / "out" / f"{name}.png") as drawn:
            assert drawn.size[0] > 300
