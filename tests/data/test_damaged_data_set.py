"""Data sets with damaged files: one line that names the data set, whoever met the damage first."""

import json
import re
import shutil

import numpy as np
import pytest

from interestyle_jax.data import avatar_builder
from interestyle_jax.data.data_set import Examples, open_data_set
from interestyle_jax.data.pipeline import evaluation_batches, training_batches
from interestyle_jax.errors import InputError

FIELDS = ("image", "interest_mask")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "world"
    sizes = {"train": 6, "validation": 2, "test": 2}
    return avatar_builder.write_avatars(out, sizes=sizes, size=16, workers=0)


@pytest.fixture
def world(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "world")


def read(world, split="train"):
    examples = Examples(world, split, FIELDS)
    return [examples[i] for i in range(len(examples))]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shard(world, split="train"):
    (path,) = world.glob(f"*{split}*array_record*")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset_info.json", b"{"),
        ("dataset_info.json", b"\xff\xfe"),
        ("dataset_info.json", b'{"splits": 3}'),
        ("dataset_info.json", b"[" * 100_000),
        ("features.json", b""),
        ("features.json", b'"image"'),
        ("features.json", b"{}"),
        ("features.json", None),
    ],
)
def test_damaged_descriptions_are_one_line(world, name, content):
    if content is None:
        (world / name).unlink()
    else:
        (world / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^{re.escape(str(world))}.*(damaged|missing|expected)"):
        open_data_set(world)


def test_damaged_records_are_one_line(world):
    """Every byte of a shard that matters is checked by array_record's hashes."""
    path, whole = shard(world), shard(world).read_bytes()
    rng = np.random.default_rng(0)
    told = 0
    for kind in ("cut", "flip", "zero"):
        for at in rng.integers(0, len(whole), 12).tolist():
            changed = bytearray(whole)
            if kind == "cut":
                del changed[at:]
            elif kind == "flip":
                changed[at] ^= 1
            else:
                changed[at : at + 5000] = bytes(len(changed[at : at + 5000]))
            path.write_bytes(changed)
            try:
                read(world)
            except InputError as error:
                told += 1
                assert str(error).startswith(f"{world}: ") and "\n" not in str(error)
    # Shards are padded to 64 KiB with bytes that nothing reads.
    assert told > 10


def test_images_that_cannot_be_decoded_are_damage(world, monkeypatch):
    def broken(encoded):
        from interestyle_jax.data.images import decode_png

        return decode_png(encoded[:40])

    monkeypatch.setattr("interestyle_jax.data.data_set.decode_png", broken)
    with pytest.raises(InputError, match="example 0 is damaged"):
        read(world)


def test_a_shard_that_is_missing_is_named(world):
    shard(world).unlink()
    with pytest.raises((InputError, OSError), match=re.escape(str(world))):
        read(world)


@pytest.mark.parametrize("lengths", [["3"], ["60"], ["-6"], ["0"], []])
def test_wrong_numbers_of_examples_do_not_crash(world, lengths):
    def change(content):
        (entry,) = [s for s in content["splits"] if s["name"] == "train"]
        entry["shardLengths"] = lengths

    edit(world / "dataset_info.json", change)
    if lengths == ["3"]:
        assert len(read(world)) == 3
        return
    with pytest.raises(InputError, match=re.escape(str(world))):
        read(world)


@pytest.mark.parametrize("shape", [["16", "16", "1"], ["-1", "-1", "3"], ["8", "8", "3"], []])
def test_images_of_another_shape_are_refused(world, shape):
    def change(content):
        image = content["featuresDict"]["features"]["image"]["image"]
        image["shape"] = {"dimensions": shape}

    edit(world / "features.json", change)
    with pytest.raises(InputError, match=r"field 'image'|image is uint8|several sizes"):
        read(world)


def test_masks_must_be_images(world):
    def change(content):
        features = content["featuresDict"]["features"]
        features["interest_mask"] = features["obstacle"]

    edit(world / "features.json", change)
    with pytest.raises(InputError, match="field 'interest_mask' is Text, expected Image"):
        read(world)


def test_no_module_is_imported_that_a_data_set_names(world, tmp_path, monkeypatch):
    (tmp_path / "canary_of_a_data_set.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def change(content):
        image = content["featuresDict"]["features"]["image"]
        image["pythonClassName"] = "canary_of_a_data_set.Image"

    edit(world / "features.json", change)
    with pytest.raises(InputError, match="names the class canary_of_a_data_set.Image"):
        open_data_set(world)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_training_ends_with_the_same_line(world, workers):
    """From Grain's threads and processes too."""
    data = bytearray(shard(world).read_bytes())
    data[100:2000] = bytes(1900)
    shard(world).write_bytes(data)
    with pytest.raises(InputError, match=re.escape(str(world))):
        with training_batches(world, "train", batch_size=2, seed=0, num_workers=workers) as batches:
            for _ in range(3):
                next(batches)


def test_what_the_system_says_is_no_damage(world, monkeypatch):
    """A failing disk is the machine's fault, not the data's."""
    batches = evaluation_batches(world, "test", batch_size=2, fields=FIELDS)

    def fail(encoded):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("interestyle_jax.data.data_set.decode_png", fail)
    with pytest.raises(OSError, match="Input/output error"):
        next(batches)
