"""Data sets of images with mask files: what comes out, and what is left out or refused."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.data.data_format import FORMAT
from interestyle_jax.data.data_set import present_fields
from interestyle_jax.data.images import read_image
from interestyle_jax.data.pipeline import evaluation_batches, training_batches
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.resize import encoder_input
from interestyle_jax.jobs.samples import Samples


@pytest.fixture
def folder(make_photos):
    """Ten images of 20 x 16 with masks, in directories of their own."""
    return make_photos([f"p{index}" for index in range(10)])


def arguments(folder, *more) -> list[str]:
    return [
        "data", f"--images={folder / 'images'}", f"--masks={folder / 'masks'}",
        f"--out={folder / 'set'}", "--size=8", "--workers=0", *more,
    ]  # fmt: skip


def records(directory) -> dict:
    builder = tfds.builder_from_directory(str(directory))
    return {
        record["name"].decode(): record
        for split in builder.info.splits
        for record in builder.as_data_source(split)
    }


def report(folder) -> dict:
    return json.loads((folder / "set" / "report.json").read_text())


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_round_trip(folder):
    assert main(arguments(folder, "--validation=2", "--test=1", "--encoding=png")) == 0
    builder = tfds.builder_from_directory(str(folder / "set"))
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 7, "validation": 2, "test": 1}
    found = records(folder / "set")
    assert sorted(found) == [f"p{i}" for i in range(10)]
    mask = Image.open(folder / "masks" / "p4.png").crop((2, 0, 18, 16))
    share = np.asarray(mask.resize((8, 8), Image.Resampling.BILINEAR))
    expected = np.where(share >= 128, 255, 0)
    assert np.array_equal(found["p4"]["interest_mask"][..., 0], expected)
    image = Image.open(folder / "images" / "p4.jpg").crop((2, 0, 18, 16))
    scaled = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(found["p4"]["image"], scaled)
    assert [found[f"p{i}"]["id"] for i in range(10)] == list(range(10))


def test_data_sets_hold_what_inversion_sees(folder):
    """The one resize: no image of a data set differs from the encoder's input of its file."""
    image = np.random.default_rng(0).integers(0, 256, (37, 37, 3), dtype=np.uint8)
    Image.fromarray(image).save(folder / "images" / "p0.png")
    (folder / "images" / "p0.jpg").unlink()
    Image.new("L", (37, 37), 255).save(folder / "masks" / "p0.png")
    assert main(arguments(folder, "--encoding=png")) == 0
    stored = records(folder / "set")["p0"]["image"]
    seen = encoder_input(read_image(folder / "images" / "p0.png"), (8, 8))
    assert np.array_equal(stored, np.rint(seen * 127.5 + 127.5))


@pytest.fixture
def photos_of_format(folder):
    """A data set of photographs whose metadata name another format."""

    def make(major):
        assert main(arguments(folder, "--test=2")) == 0
        info = folder / "set" / "dataset_info.json"
        text = info.read_text()
        assert f'"version": "{FORMAT}.0.0"' in text
        info.write_text(text.replace(f'"{FORMAT}.0.0"', f'"{major}.0.0"'))
        return folder / "set"

    return make


def test_the_manifest_names_the_format(folder):
    assert main(arguments(folder)) == 0
    assert json.loads((folder / "set" / "manifest.json").read_text())["format"] == FORMAT == 2
    assert json.loads((folder / "set" / "metadata.json").read_text())["resize"] == "bilinear"


@pytest.mark.parametrize(
    ("major", "words"), [(1, "format 1, .*Lanczos.*; make it again"), (9, "format 9, .* newer")]
)
def test_other_formats_are_refused_in_words(photos_of_format, major, words):
    directory = photos_of_format(major)
    with pytest.raises(InputError, match=words):
        Samples(directory, "test")
    with pytest.raises(InputError, match=words):
        training_batches(directory, "train", batch_size=2, seed=0)


def test_jpeg_keeps_colours_and_is_the_default(folder):
    red_edge = np.zeros((16, 20, 3), np.uint8)
    red_edge[:, 1::2, 0] = 255
    Image.fromarray(red_edge).save(folder / "images" / "p0.png")
    (folder / "images" / "p0.jpg").unlink()
    assert main(arguments(folder, "--size=16")) == 0
    stored = records(folder / "set")["p0"]["image"].astype(int)
    # Chroma at half resolution would blur columns one pixel wide into each other.
    assert np.abs(stored - red_edge[:, 2:18]).max() < 40
    source = tfds.builder_from_directory(str(folder / "set")).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert source[0]["image"][:2] == b"\xff\xd8"
    assert json.loads((folder / "set" / "metadata.json").read_text())["quality"] == 95


def test_seed_deals_the_splits(folder):
    def test_names(seed):
        assert main(arguments(folder, f"--seed={seed}", "--test=3", "--force")) == 0
        source = tfds.builder_from_directory(str(folder / "set")).as_data_source("test")
        return [record["name"].decode() for record in source]

    first = test_names(0)
    assert first == test_names(0) and len(first) == 3
    assert any(test_names(seed) != first for seed in (1, 2))


def spoil(folder, what: str, name: str = "p3") -> None:
    mask, image = folder / "masks" / f"{name}.png", folder / "images" / f"{name}.jpg"
    if what == "missing":
        mask.unlink()
    elif what == "size":
        Image.new("L", (20, 20), 255).save(mask)
    elif what == "empty":
        Image.new("L", (20, 16), 0).save(mask)
    elif what == "coloured":
        Image.new("RGB", (20, 16), (255, 0, 0)).save(mask)
    elif what == "cut mask":
        mask.write_bytes(mask.read_bytes()[:-20])
    elif what == "cut off":
        image.write_bytes(image.read_bytes()[:-80])
    elif what == "text":
        image.write_text("hello")
    elif what == "nothing":
        image.write_bytes(b"")


PROBLEMS = [
    ("missing", "no interest mask", "p3.jpg: has no interest mask in"),
    ("size", "mask of another size", "p3.png: mask is 20x20, its image p3.jpg 20x16"),
    ("empty", "empty mask", "p3.png: mask is empty"),
    ("coloured", "unreadable mask", "p3.png: mask has coloured pixels"),
    ("cut mask", "unreadable mask", "p3.png: unreadable or cut off"),
    ("cut off", "unreadable image", "p3.jpg: unreadable or cut off"),
    ("text", "unreadable image", "p3.jpg: is not an image"),
    ("nothing", "unreadable image", "p3.jpg"),
]


@pytest.mark.parametrize(("what", "kind", "words"), PROBLEMS)
def test_bad_image_is_an_error_or_left_out(folder, what, kind, words, capsys):
    spoil(folder, what)
    assert main(arguments(folder)) == 2
    last = last_line(capsys)
    assert last.startswith("interestyle: error: 1 of 10 images cannot be used") and words in last
    assert not (folder / "set").exists()

    assert main(arguments(folder, "--max-skipped=0.1")) == 0
    found = records(folder / "set")
    assert sorted(found) == [f"p{i}" for i in range(10) if i != 3]
    assert found["p4"]["id"] == 4
    told = report(folder)
    assert told["skipped"] == 1 and told["kinds"] == {kind: 1}
    assert told["images_skipped"][0]["name"] == "p3"
    assert words in told["images_skipped"][0]["reason"]
    assert sum(told["written"].values()) == 9
    assert "skipped 1 of 10 images: 1 " + kind in capsys.readouterr().err


def test_all_problems_are_listed_and_ten_named(make_photos, capsys):
    folder = make_photos([f"p{index:02d}" for index in range(40)])
    for index in range(12):
        spoil(folder, "empty" if index % 2 else "cut off", f"p{index:02d}")
    assert main(arguments(folder, "--max-skipped=0.2")) == 2
    last = last_line(capsys)
    assert "12 of 40 images cannot be used, more than the 20 % that --max-skipped" in last
    assert sum(f"p{index:02d}." in last for index in range(40)) == 10
    assert "and 2 more, see" in last and "report.json" in last
    told = json.loads((folder / ".set.building" / "report.json").read_text())
    assert told["kinds"] == {"empty mask": 6, "unreadable image": 6}
    # Twelve of forty are 30 %: now allowed, and what was read is not read again.
    assert main(arguments(folder, "--max-skipped=0.3")) == 0
    assert "resuming: 3 of 3 shards are there" in capsys.readouterr().err
    assert report(folder)["skipped"] == 12
    assert sorted(p.name for p in folder.iterdir()) == ["images", "masks", "set"]


def test_wrong_masks_end_before_images_are_read(make_photos, capsys):
    folder = make_photos([f"p{index:03d}" for index in range(120)])
    for index in range(110):
        (folder / "masks" / f"p{index:03d}.png").unlink()
    assert main(arguments(folder)) == 2
    err = capsys.readouterr().err
    assert "110 of 120 images cannot be used so far" in err
    assert "image/s" not in err


def test_unusual_images_are_taken(folder):
    for name, image in {
        "p3": Image.new("L", (20, 16), 7),
        "p5": Image.new("RGBA", (20, 16), (1, 2, 3, 0)),
        "p6": Image.fromarray(np.full((16, 20), 65535, np.uint16)),
    }.items():
        (folder / "images" / f"{name}.jpg").unlink()
        image.save(folder / "images" / f"{name}.png")
        Image.new("L", (20, 16), 255).save(folder / "masks" / f"{name}.png")
    assert main(arguments(folder)) == 0
    seen = {name: record["image"] for name, record in records(folder / "set").items()}
    assert (seen["p3"] == 7).all()
    assert (seen["p5"] == 255).all()
    assert (seen["p6"] == 255).all()


def test_masks_without_images_are_noted(folder):
    Image.new("L", (20, 16), 255).save(folder / "masks" / "other.png")
    assert main(arguments(folder)) == 0
    assert report(folder)["notes"] == ["1 files in masks belong to no image used here"]


def test_face_masks_and_folder_of_the_masks_command(make_photos):
    folder = make_photos(["a", "b", "c", "d"], kinds=("masks/interest", "masks/face"))
    Image.new("L", (20, 16), 255).save(folder / "masks" / "face" / "a.png")
    assert main(arguments(folder, "--validation=1", "--test=1")) == 0
    found = records(folder / "set")
    assert (found["a"]["face_mask"] == 255).all()
    assert not (found["a"]["interest_mask"] == 255).all()


def test_images_without_masks_serve_measurements_and_whole_image_losses(folder):
    base = [a for a in arguments(folder) if not a.startswith("--masks")]
    assert main([*base, "--masks=none"]) == 0
    assert set(next(iter(records(folder / "set").values()))) == {"image", "name", "id"}
    assert Samples(folder / "set", "train").fields == ("image",)
    fields = ("image", "interest_mask")
    assert present_fields(folder / "set", fields, optional=("interest_mask",)) == ("image",)
    assert present_fields(folder / "set", fields) == fields
    with pytest.raises(InputError, match="no field 'interest_mask'.*interestyle data --masks"):
        training_batches(folder / "set", "train", batch_size=2, seed=0)


def test_training_and_evaluation_read_it(folder):
    assert main(arguments(folder, "--validation=2", "--test=3")) == 0
    with training_batches(folder / "set", "train", batch_size=5, seed=0) as batches:
        batch = next(batches)
    assert batch["image"].shape == (5, 8, 8, 3) and batch["image"].dtype == np.uint8
    assert set(np.unique(batch["interest_mask"])) == {0, 255}
    samples = Samples(folder / "set", "test")
    assert samples.fields == ("image", "interest_mask")
    read = [samples.read(samples[i], [(8, 8)])[8, 8] for i in range(len(samples))]
    assert [sample["interest_mask"].shape for sample in read] == [(8, 8, 1)] * 3
    (row,) = evaluation_batches(folder / "set", "validation", batch_size=2, fields=("name",))
    assert all(str(name).startswith("p") for name in row["name"])


def test_other_images_as_validation(make_photos):
    folder = make_photos([f"p{index}" for index in range(6)])
    for kind in ("images", "masks"):
        (folder / "held" / kind).mkdir(parents=True)
        for path in sorted((folder / kind).iterdir())[:3]:
            path.rename(folder / "held" / kind / path.name)
    held = [f"--validation-images={folder / 'held' / 'images'}"]
    masks = [f"--validation-masks={folder / 'held' / 'masks'}"]
    assert main(arguments(folder, *held)) == 2
    assert main(arguments(folder, *held, *masks, "--validation=2")) == 0
    builder = tfds.builder_from_directory(str(folder / "set"))
    names = {
        split: [(r["name"].decode(), int(r["id"])) for r in builder.as_data_source(split)]
        for split in builder.info.splits
    }
    assert names == {
        "train": [("p3", 0), ("p4", 1), ("p5", 2)], "validation": [("p0", 3), ("p1", 4)],
    }  # fmt: skip


def test_only_one_split(folder):
    assert main(arguments(folder, "--validation=2", "--test=1", "--only=validation")) == 0
    assert list(tfds.builder_from_directory(str(folder / "set")).info.splits) == ["validation"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--validation=8", "--test=2"], "10 images cannot give 8 for validation"),
        (["--size=4"], "size: 4 is outside 8 ... 4096"),
        (["--max-skipped=1.5"], "--max-skipped: 1.5 is outside"),
        (["--seed=-1"], "--seed: -1 is negative"),
        (["--workers=-1"], "--workers: -1 is negative"),
        (["--layout=celebahq"], "CelebA-HQ-to-CelebA-mapping.txt or image_list.txt is neither"),
        (["--layout=afhq"], "is not laid out as AFHQ"),
        (["--layout=ffhq"], "is not named as FFHQ's images are"),
        (["--class=wild"], "has no classes"),
        (["--splits=official"], "a plain folder has no official splits"),
        (["--masks=nowhere"], "'nowhere' is no directory and none of folder, celebamask"),
        (["--images=nowhere"], "nowhere: no such file or directory"),
        (["--validation-masks=masks"], "--validation-images required"),
        (["--only=train", "--validation-images=images"], "--only: not with --validation-images"),
        (["--encoding=gif"], "invalid choice: 'gif'"),
        (["--out=images/p0.jpg/set"], "cannot be written: Not a directory"),
        (["--only=test", "--test=0"], "there is no split 'test'"),
    ],
)
def test_bad_arguments_end_with_status_2(folder, more, words, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(arguments(folder, *more)) == 2
    err = capsys.readouterr().err
    assert words in err.splitlines()[-1], err
    assert sorted(p.name for p in folder.iterdir()) == ["images", "masks"]


def test_equal_names_are_refused(folder, capsys):
    Image.new("RGB", (20, 16)).save(folder / "images" / "p3.png")
    assert main(arguments(folder)) == 2
    assert "p3.png: has the same name as p3.jpg up to the suffix" in last_line(capsys)
    (folder / "images" / "p3.png").unlink()
    (folder / "masks" / "more").mkdir()
    Image.new("L", (20, 16), 255).save(folder / "masks" / "more" / "p3.png")
    assert main(arguments(folder)) == 2
    assert "p3.png: has the same name as" in last_line(capsys)


def test_required_arguments(capsys):
    assert main(["data"]) == 2
    assert "--images, --masks, --out required" in last_line(capsys)
    assert main(["data", "--images=a", "--out=b"]) == 2
    assert "--masks required" in last_line(capsys)
