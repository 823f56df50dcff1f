"""Writing data sets: what comes out is what was drawn, whole or not at all."""

import json
import resource

import numpy as np
import pytest
import tensorflow_datasets as tfds

from interestyle_jax.cli import main
from interestyle_jax.data import avatar_builder, avatars, dataset_writer
from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.errors import InputError, MachineError

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


def test_interrupted_run_is_gone_on_with(tmp_path, monkeypatch, capsys):
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
    assert [p.name for p in tmp_path.iterdir()] == [".set.building"]
    monkeypatch.undo()
    capsys.readouterr()
    first = fingerprint(avatar_builder.write_avatars(out, **kwargs))
    assert "resuming: 1 of 2 shards are there" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    again = fingerprint(avatar_builder.write_avatars(out, force=True, **kwargs))
    assert first == again
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_failed_replacement_keeps_the_old_set(tmp_path, monkeypatch):
    options = {"size": 16, "clean_only": True, "workers": 0}
    out = avatar_builder.write_avatars(tmp_path / "world", sizes={"train": 3}, **options)
    before = fingerprint(out)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_writer, "_put", full)
    with pytest.raises(MachineError, match="world: cannot be written: No space left on device"):
        avatar_builder.write_avatars(out, sizes={"train": 2}, force=True, **options)
    assert fingerprint(out) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_full_disk_is_one_line(tmp_path, capsys, workers):
    """The writer in C++ meets a limit on file sizes, as it would a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        status = main(
            ["data", "avatars", f"--out={tmp_path / 'set'}", "--train=60", "--validation=0",
             "--test=0", "--size=32", "--clean-only", f"--workers={workers}"]
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1
    assert (
        ".set.building: cannot be written: File too large; finished parts stay"
        in capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] in ([], [".set.building"])


def test_worker_processes_write_the_same_set(tmp_path, capfd):
    common = ["--size=16", "--train=20", "--validation=2", "--test=0", "--clean-only"]
    for out, workers in (("a", "0"), ("b", "2")):
        arguments = ["avatars", f"--out={tmp_path / out}", *common, f"--workers={workers}"]
        assert main(["data", *arguments]) == 0
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    builder = tfds.builder_from_directory(str(tmp_path / "b"))
    assert set(builder.info.features) == {"clean", "factors", "id"}
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
    assert main(["data", *arguments, f"--out={tmp_path / 'set'}"]) == 2
    stderr = capsys.readouterr().err
    assert words in stderr and stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
