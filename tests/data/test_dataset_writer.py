"""A build that is killed and resumed gives the data set of one that was not."""

import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from interestyle_jax.data import dataset_writer
from interestyle_jax.data.build import Source
from interestyle_jax.data.dataset_writer import write_dataset
from interestyle_jax.data.images import encode_png
from interestyle_jax.data.manifest import verify
from interestyle_jax.data.shards import Skipped
from interestyle_jax.errors import InputError, MachineError


def content(directory) -> dict:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def command(folder, out, workers) -> list[str]:
    return [
        sys.executable, "-m", "interestyle_jax", "data", f"--images={folder / 'images'}",
        f"--masks={folder / 'masks'}", f"--out={out}", f"--workers={workers}", "--size=64",
        "--validation=20", "--test=20",
    ]  # fmt: skip


def killed_and_finished(folder, *, kill_after, workers):
    """Builds `killed` with a SIGKILL after so many shards, `whole` without; -> their contents."""
    run = functools.partial(
        subprocess.run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    first = subprocess.Popen(command(folder, folder / "killed", workers), stderr=subprocess.DEVNULL)
    building = folder / ".killed.building"
    while len(list(building.glob("*-?????.json"))) < kill_after:
        assert first.poll() is None, "the build ended before it was killed"
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(0.5)
    after = {path.name: path.stat().st_mtime_ns for path in building.iterdir()}
    time.sleep(0.5)
    assert after == {path.name: path.stat().st_mtime_ns for path in building.iterdir()}
    assert not (folder / "killed").exists()
    done = {json.loads(path.read_text())["sha256"] for path in building.glob("*-?????.json")}
    # A shard is finished with its JSON file; the kill may come between the two.
    finished = [path.with_suffix("") for path in building.glob("*-?????.json")]
    kept = {path.stat().st_ino for path in finished}
    second = run(command(folder, folder / "killed", workers + 1))
    assert f"resuming: {len(done)} of" in second.stderr
    # Renamed, not written again.
    assert kept <= {path.stat().st_ino for path in (folder / "killed").iterdir()}
    run(command(folder, folder / "whole", 0))
    assert not building.exists()
    return content(folder / "killed"), content(folder / "whole")


def test_killed_build_is_finished_bit_for_bit(make_photos):
    folder = make_photos([f"p{index:03d}" for index in range(400)], side=96)
    killed, whole = killed_and_finished(folder, kill_after=1, workers=1)
    assert killed.keys() == whole.keys()
    assert all(killed[name] == whole[name] for name in whole)
    assert sum("array_record" in name for name in whole) == 8
    assert sum(e.get("examples", 0) for e in verify(folder / "killed")["files"].values()) == 400


@pytest.mark.slow
def test_ten_thousand_images_killed_and_finished(tmp_path):
    count, side = 10_000, 64
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    for index in range(count):
        centre, radius = rng.uniform(20, 44, 2), rng.uniform(8, 24)
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        image = (
            rng.integers(0, 256, 3) * inside[..., None]
            + rng.integers(0, 64, (side, side, 3)) * ~inside[..., None]
        )
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"{index:05d}.png")
        mask = np.where(inside, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index:05d}.png", compress_level=1)
    started = time.perf_counter()
    killed, whole = killed_and_finished(tmp_path, kill_after=30, workers=2)
    print(f"{2 * count} images built in {time.perf_counter() - started:.1f} s")
    assert killed == whole
    builder = tfds.builder_from_directory(str(tmp_path / "killed"))
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": count - 40, "validation": 20, "test": 20}
    names = [record["name"].decode() for record in builder.as_data_source("train")]
    assert len(set(names)) == count - 40 and names == sorted(names)


def number_example(index: int) -> dict | Skipped:
    """An example for which the number is image and mask alike."""
    if index < 0:
        return Skipped(str(index), "negative", f"{index} is negative")
    if index == 1000:
        os._exit(9)
    return {"image": encode_png(np.full((8, 8, 3), index, np.uint8)), "id": index}


def source(indices, **options) -> Source:
    return Source(
        name="numbers",
        features={
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"), "id": np.int64,
        },
        splits={"train": [(index, index) for index in indices]},
        make=number_example,
        options={"size": 8, **options},
        size=8,
    )  # fmt: skip


def test_a_shard_in_which_nothing_is_left_is_no_file(tmp_path):
    out = write_dataset(
        source([*range(64), *[-1] * 64, *range(64, 128)]), tmp_path / "set", workers=0,
        max_skipped=0.4,
    )  # fmt: skip
    builder = tfds.builder_from_directory(str(out))
    assert builder.info.splits["train"].shard_lengths == [64, 64]
    assert [r["id"] for r in builder.as_data_source("train")] == list(range(128))
    with pytest.raises(InputError, match="split train: no image is left"):
        write_dataset(source([-1] * 3), tmp_path / "none", workers=0, max_skipped=1.0)


def stopped(tmp_path, monkeypatch, where, **options):
    """A build that ends where `where` is called."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset_writer, where, stop)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(source(range(150), **options), tmp_path / "set", workers=0)


@pytest.mark.parametrize("where", ["_gather", "_describe", "_put"])
def test_a_run_that_ends_while_it_gathers_loses_nothing(tmp_path, monkeypatch, where, capsys):
    stopped(tmp_path, monkeypatch, where)
    assert not (tmp_path / "set").exists()
    again = write_dataset(source(range(150)), tmp_path / "set", workers=0)
    assert "resuming: 3 of 3 shards" in capsys.readouterr().err
    fresh = write_dataset(source(range(150)), tmp_path / "fresh", workers=0)
    assert content(again) == content(fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "set"]


def test_other_options_or_images_make_their_shards_anew(tmp_path, monkeypatch, capsys):
    stopped(tmp_path, monkeypatch, "_gather", seed=1)
    stopped(tmp_path, monkeypatch, "_gather", seed=2)
    assert "resuming: 0 of 3 shards are there, 3 of other files or options" in (
        capsys.readouterr().err
    )
    out = write_dataset(source([*range(149), 7], seed=2), tmp_path / "set", workers=0)
    assert "resuming: 2 of 3 shards are there, 1 of other files" in capsys.readouterr().err
    fresh = write_dataset(source([*range(149), 7], seed=2), tmp_path / "fresh", workers=0)
    assert content(out) == content(fresh)


def test_damaged_leftovers_are_written_again(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch, "_gather")
    building = tmp_path / ".set.building"
    (building / "train-00000").write_bytes(b"short")
    (building / "train-00001.json").write_text('{"key": ')
    (building / "train-00002.123.tmp").write_bytes(b"half")
    out = write_dataset(source(range(150)), tmp_path / "set", workers=0)
    fresh = write_dataset(source(range(150)), tmp_path / "fresh", workers=0)
    assert content(out) == content(fresh)


def test_two_builds_of_one_set_do_not_mix(tmp_path):
    building = tmp_path / ".set.building"
    building.mkdir()
    with open(building / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is building there"):
            write_dataset(source(range(3)), tmp_path / "set", workers=0)
    assert (building / "lock").exists()


def test_a_dead_worker_ends_the_build(tmp_path):
    with pytest.raises(MachineError, match="a worker process died"):
        write_dataset(source([*range(70), 1000]), tmp_path / "set", workers=1)
    assert not (tmp_path / "set").exists()


def test_a_script_without_a_main_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from interestyle_jax.data.avatar_builder import write_avatars\n"
        "sizes = {'train': 1, 'validation': 1, 'test': 1}\n"
        f"write_avatars({str(tmp_path / 'set')!r}, sizes=sizes, size=16, workers=1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: no worker process could start" in last and "__main__" in last
    # Workers say nothing of their own.
    assert "bootstrapping" not in done.stderr and done.stderr.count("InputError: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize("workers", [0, 1])
def test_unforeseen_errors_come_through(tmp_path, workers):
    with pytest.raises(OverflowError, match="300"):
        write_dataset(source([3, 300]), tmp_path / "set", workers=workers)
