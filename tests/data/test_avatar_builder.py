"""Writing data sets: what comes out is what was drawn, whole or not at all."""

import json
import resource

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from interestyle_jax.data import avatar_builder, avatars, prepare
from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.errors import InputError

FIELDS = ("image", "clean", *avatar_builder.MASK_FIELDS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "world"
    return avatar_builder.write_avatars(
        out, sizes={"train": 6, "validation": 3, "test": 0}, size=16, seed=3, workers=0
    )


def test_round_trip(world):
    builder = tfds.builder_from_directory(str(world))
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == {
        "train": 6, "validation": 3,
    }  # fmt: skip
    for split in ("train", "validation"):
        for index, record in enumerate(builder.as_data_source(split)):
            drawn = avatars.sample(index, size=16, split=split, seed=3)
            for field in FIELDS:
                assert np.array_equal(record[field], drawn[field]), (split, index, field)
            assert record["id"] == index
            assert record["obstacle"].decode() == drawn["obstacle"]
            assert record["background"].decode() == drawn["background"]
            assert record["labels"]["mouth"].decode() == drawn["labels"]["mouth"]
            assert record["labels"]["tilt"] == pytest.approx(drawn["labels"]["tilt"], rel=1e-6)


def test_directory_says_what_it_is(world):
    assert json.loads((world / "metadata.json").read_text())["style"] == "toon-head"
    assert "CC BY 4.0" in (world / "LICENSE").read_text()
    assert [p.name for p in world.parent.iterdir()] == ["world"]


def test_existing_directory_stays(world):
    before = fingerprint(world)
    with pytest.raises(InputError, match="world: exists already"):
        avatar_builder.write_avatars(world, sizes={"train": 2}, size=16, workers=0)
    assert fingerprint(world) == before


def test_force_replaces_only_data_sets(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a data set"):
        avatar_builder.write_avatars(
            tmp_path / "photos", sizes={"train": 1}, size=16, workers=0, force=True
        )
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    out = tmp_path / "set"
    kwargs = {"sizes": {"train": 4, "test": 2}, "size": 16, "clean_only": True, "workers": 0}
    draw = avatars.clean_sample

    def interrupted(index, *, split="train", **options):
        if split == "test":
            raise KeyboardInterrupt
        return draw(index, split=split, **options)

    monkeypatch.setattr(avatars, "clean_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        avatar_builder.write_avatars(out, **kwargs)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    # What a killed run leaves behind does not matter to the next.
    (tmp_path / ".set.incomplete" / "avatars").mkdir(parents=True)
    first = fingerprint(avatar_builder.write_avatars(out, **kwargs))
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    again = fingerprint(avatar_builder.write_avatars(out, force=True, **kwargs))
    assert first == again
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_failed_replacement_keeps_the_old_set(world, monkeypatch):
    before = fingerprint(world)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(avatars, "sample", full)
    with pytest.raises(InputError, match="world: cannot be written: No space left on device"):
        avatar_builder.write_avatars(world, sizes={"train": 2}, size=16, workers=0, force=True)
    assert fingerprint(world) == before
    assert [p.name for p in world.parent.iterdir()] == ["world"]


def test_full_disk_is_one_line(tmp_path, capsys):
    """The writer in C++ meets a limit on file sizes, as it would a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        status = prepare.main(
            ["avatars", f"--out={tmp_path / 'set'}", "--train=60", "--validation=0", "--test=0",
             "--size=32", "--clean-only", "--workers=0"]
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert "set: cannot be written: File too large" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_worker_processes_write_the_same_set(tmp_path, capfd):
    common = ["--size=16", "--train=20", "--validation=2", "--test=0", "--clean-only"]
    for out, workers in (("a", "0"), ("b", "2")):
        arguments = ["avatars", f"--out={tmp_path / out}", *common, f"--workers={workers}"]
        assert prepare.main(arguments) == 0
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    builder = tfds.builder_from_directory(str(tmp_path / "b"))
    assert set(builder.info.features) == {"clean", "id"}
    assert len(builder.as_data_source("train")) == 20
    assert f"wrote {tmp_path / 'b'}" in capfd.readouterr().out


def test_fingerprint_sees_a_change(tmp_path):
    out = avatar_builder.write_avatars(
        tmp_path / "set", sizes={"train": 2}, size=16, clean_only=True, workers=0
    )
    before = fingerprint(out)
    record = next(out.glob("*array_record*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    record.write_bytes(content)
    assert fingerprint(out) != before
    with pytest.raises(InputError, match="is not a data set"):
        fingerprint(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["avatars", "--style=nobody"], "style: 'nobody' is none of toon-head, personas"),
        (["avatars", "--size=3"], "size: 3 is outside"),
        (["avatars", "--train=-1"], "train: -1 examples"),
        (["avatars", "--train=0", "--validation=0", "--test=0"], "no examples"),
        (["avatars", "--seed=-2"], "--seed: -2 is negative"),
        (["avatars", "--workers=-2"], "--workers: -2 is negative"),
    ],
)
def test_bad_arguments_end_with_status_2(arguments, words, tmp_path, capsys):
    assert prepare.main([*arguments, f"--out={tmp_path / 'set'}"]) == 2
    stderr = capsys.readouterr().err
    assert words in stderr and stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of 20 x 16 with masks, in directories of their own."""
    rng = np.random.default_rng(1)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index in range(10):
        picture = rng.integers(0, 256, (16, 20, 3), np.uint8)
        mask = np.zeros((16, 20), np.uint8)
        mask[4:12, 5 : 8 + index] = 255
        Image.fromarray(picture).save(tmp_path / "images" / f"p{index}.jpg")
        Image.fromarray(mask).save(tmp_path / "masks" / f"p{index}.png")
    return tmp_path


def folder_arguments(folder, *more) -> list[str]:
    return [
        "folder", f"--images={folder / 'images'}", f"--masks={folder / 'masks'}",
        f"--out={folder / 'set'}", "--size=8", "--workers=0", *more,
    ]  # fmt: skip


def test_folder_round_trip(folder):
    assert prepare.main(folder_arguments(folder, "--validation=2", "--test=1")) == 0
    builder = tfds.builder_from_directory(str(folder / "set"))
    names = {}
    for split, count in {"train": 7, "validation": 2, "test": 1}.items():
        source = builder.as_data_source(split)
        assert len(source) == count
        for record in source:
            names[record["name"].decode()] = record
    assert sorted(names) == [f"p{i}" for i in range(10)]
    mask = np.asarray(Image.open(folder / "masks" / "p4.png"))[:, 2:18]
    expected = np.where(mask.reshape(8, 2, 8, 2).mean(axis=(1, 3)) >= 127.5, 255, 0)
    assert np.array_equal(names["p4"]["interest_mask"][..., 0], expected)
    assert names["p4"]["image"].shape == (8, 8, 3)
    assert names["p4"]["id"] == 4


def spoil(folder, what: str) -> None:
    masks, images = folder / "masks", folder / "images"
    if what == "missing":
        (masks / "p3.png").unlink()
    elif what == "size":
        Image.new("L", (20, 20), 255).save(masks / "p3.png")
    elif what == "empty":
        Image.new("L", (20, 16), 0).save(masks / "p3.png")
    elif what == "coloured":
        Image.new("RGB", (20, 16), (255, 0, 0)).save(masks / "p3.png")
    elif what == "cut off":
        content = (images / "p3.jpg").read_bytes()
        (images / "p3.jpg").write_bytes(content[: len(content) - 80])
    elif what == "text":
        (images / "p3.jpg").write_text("hello")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "p3.jpg: has no interest mask in"),
        ("size", "p3.png: mask is 20x20, its picture p3.jpg 20x16"),
        ("empty", "p3.png: mask is empty"),
        ("coloured", "p3.png: mask has coloured pixels"),
        ("cut off", "p3.jpg: unreadable or cut off"),
        ("text", "p3.jpg: is not a picture"),
    ],
)
def test_bad_folder_is_refused_whole(folder, what, words, capsys):
    spoil(folder, what)
    assert prepare.main(folder_arguments(folder)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last and last.startswith("interestyle data: ")
    assert sorted(p.name for p in folder.iterdir()) == ["images", "masks"]


def test_folder_lists_all_problems_and_takes_unusual_pictures(folder, capsys):
    spoil(folder, "missing")
    Image.new("L", (20, 16), 0).save(folder / "masks" / "p5.png")
    assert prepare.main(folder_arguments(folder)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "p3.jpg" in last and "p5.png" in last
    for name, picture in {
        "p3": Image.new("L", (20, 16), 7),
        "p5": Image.new("RGBA", (20, 16), (1, 2, 3, 0)),
        "p6": Image.fromarray(np.full((16, 20), 65535, np.uint16)),
    }.items():
        (folder / "images" / f"{name}.jpg").unlink()
        picture.save(folder / "images" / f"{name}.png")
        Image.new("L", (20, 16), 255).save(folder / "masks" / f"{name}.png")
    assert prepare.main(folder_arguments(folder)) == 0
    builder = tfds.builder_from_directory(str(folder / "set"))
    seen = {}
    for split in builder.info.splits:
        seen.update({r["name"].decode(): r["image"] for r in builder.as_data_source(split)})
    assert (seen["p3"] == 7).all()
    assert (seen["p5"] == 255).all()
    assert (seen["p6"] == 255).all()


def test_folder_too_small_for_its_splits(folder, capsys):
    assert prepare.main(folder_arguments(folder, "--validation=8", "--test=2")) == 2
    assert "10 pictures cannot give 8 for validation" in capsys.readouterr().err
