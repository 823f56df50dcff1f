"""Any image job: stopped and resumed, in parts, with bad images and foreign folders."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.jobs import pipeline
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import ImageJob, Result
from interestyle_jax.jobs.progress import Progress
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.shard import Shard


class Doubled(ImageJob):
    """Bytes to twice their values; the latents are their first four."""

    command = "double"
    batch_size = 4
    latents_shape = (1, 2, 2)
    own_files = ("latents.npz", "report.json")

    def __init__(self, options=None, hook=None):
        self.options = options or {"factor": 2}
        self.hook = hook or (lambda stage, what: None)
        self.loaded, self.rows = [], []

    def outputs(self, name):
        return (f"{name}.out", f"more/{name}.out")

    def load(self, item):
        self.hook("load", item.name)
        self.loaded.append(item.name)
        content = item.source.read_bytes()
        if content == b"bad":
            raise InputError(f"{item.source}: is bad")
        return np.frombuffer(content.ljust(8, b"0"), np.uint8)[:8]

    def compute(self, rows):
        self.hook("compute", rows)
        self.rows.append([row is not None for row in rows])
        # What a row gives depends on its place, as floating-point numbers of a device may.
        return np.stack(
            [
                np.zeros(8, int) if row is None else row.astype(int) * 2 + i
                for i, row in enumerate(rows)
            ]
        )

    def save(self, item, loaded, row):
        self.hook("save", item.name)
        content = row.astype("<i4").tobytes()
        files = {name: content for name in self.outputs(item.name)}
        return Result(files, {"first": int(row[0])}, row[:4].reshape(1, 2, 2).astype(np.float32))

    def finish(self, out, finished):
        self.hook("finish", "")
        return {"sum": sum(record["first"] for record in finished.records)}


@pytest.fixture
def files(tmp_path):
    """Ten small files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(10):
        (folder / f"p{i}.png").write_bytes(f"{i}image".encode())
    return folder


def run(files, out, *, job=None, **options):
    return run_job(job or Doubled(), ImageFiles(files), Path(out), workers=2, **options)


def contents(out):
    """{path: bytes} of the results; the report and the progress tell times."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(Path(out).rglob("*"))
        if path.is_file() and path.name != "report.json" and "progress" not in path.name
    }


@pytest.fixture
def whole(files, tmp_path):
    """What an uninterrupted run leaves, and its report."""
    report = run(files, tmp_path / "whole")
    return contents(tmp_path / "whole"), report


def test_results_report_and_nothing_else(files, whole, tmp_path):
    results, report = whole
    names = [f"p{i}" for i in range(10)]
    assert set(results) == {f"{d}{n}.out" for n in names for d in ("", "more/")} | {"latents.npz"}
    values = np.frombuffer(results["p5.out"], "<i4")
    np.testing.assert_array_equal(values, np.frombuffer(b"5image00", np.uint8).astype(int) * 2 + 1)
    with np.load(tmp_path / "whole" / "latents.npz") as latents:
        assert latents["names"].tolist() == names
        np.testing.assert_array_equal(latents["w_plus"][5].ravel(), values[:4])
    assert report["num_images"] == report["num_new"] == 10 and report["status"] == "done"
    assert report == json.loads((tmp_path / "whole" / "report.json").read_text())


def test_the_second_run_does_nothing(files, whole, tmp_path):
    out = tmp_path / "whole"
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    job = Doubled(hook=lambda stage, what: pytest.fail(stage))
    report = run(files, out, job=job)
    assert report == whole[1] | {"num_new": 0}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_only_changed_and_damaged_images_are_done_again(files, whole, tmp_path):
    out = tmp_path / "whole"
    (files / "p3.png").write_bytes(b"3changed")
    (out / "p6.out").write_bytes(b"cut")
    (out / "more" / "p9.out").unlink()
    job = Doubled()
    run(files, out, job=job)
    assert sorted(job.loaded) == ["p3", "p6", "p9"]
    assert job.rows == [
        [False, False, False, True],
        [False, False, True, False],
        [False, True] + [False] * 2,
    ]
    run(files, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh") != whole[0]


def test_images_that_come_and_go(files, whole, tmp_path):
    out = tmp_path / "whole"
    (files / "p0.png").rename(files / "p10.png")
    job = Doubled()
    report = run(files, out, job=job)
    assert job.loaded == ["p10"] and report["num_images"] == 10
    with np.load(out / "latents.npz") as latents:
        assert latents["names"].tolist() == ["p1", "p10", *(f"p{i}" for i in range(2, 10))]
    (files / "p10.png").unlink()
    assert run(files, out)["num_images"] == 9
    with np.load(out / "latents.npz") as latents:
        assert latents["names"].tolist() == [f"p{i}" for i in range(1, 10)]


@pytest.mark.parametrize("stage", ["load", "compute", "save", "finish"])
def test_an_error_keeps_what_is_finished(files, whole, tmp_path, stage):
    out, calls = tmp_path / "out", []

    def fail(at, what):
        calls.append(at)
        # In files, the last one: threads begin them in any order.
        last = what == "p9" if at in ("load", "save") else calls.count(at) == 3 or at == "finish"
        if at == stage and last:
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        run(files, out, job=Doubled(hook=fail))
    job = Doubled()
    run(files, out, job=job)
    assert contents(out) == whole[0]
    if stage in ("finish", "save"):
        assert len(job.loaded) < 10


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_run
from interestyle_jax.jobs import pipeline, run
run.COMMIT_SECONDS = 0
written = [0]
write = pipeline.write_whole
def write_and_die(path, content, **options):
    written[0] += 1
    if written[0] == int(sys.argv[4]):
        path.with_name(f".{path.name}.{os.getpid()}").write_bytes(content[:5])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content, **options)
pipeline.write_whole = write_and_die
test_run.run(Path(sys.argv[2]), sys.argv[3])
"""


def test_killed_runs_are_resumed_bit_for_bit(files, tmp_path):
    """Killed while an image's file is half-written."""
    out = tmp_path / "out"
    for i in range(10, 60):
        (files / f"p{i}.png").write_bytes(f"{i}image".encode())
    run(files, tmp_path / "long")
    expected = contents(tmp_path / "long")
    for at in (50, 41):
        arguments = [str(Path(__file__).parent), str(files), str(out), str(at)]
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -9, killed.stderr
        # What is there is whole.
        for name, content in contents(out).items():
            if name.endswith(".out") and not Path(name).name.startswith("."):
                assert content == expected[name]
    assert any(path.name.startswith(".p") for path in out.rglob("*"))
    with (out / "progress.jsonl").open("ab") as file:
        file.write(b'{"name": "p')
    job = Doubled()
    run(files, out, job=job)
    assert 0 < len(job.loaded) < 50
    assert contents(out) == expected


def test_what_a_kill_left_of_the_joining_goes(files, whole, tmp_path):
    out = tmp_path / "whole"
    (out / "report.json").unlink()
    for name in (".latents.npz.7", ".report.json.7", ".latents-00000-of-00002.npz.7", ".mine"):
        (out / name).write_bytes(b"half")
    run(files, out)
    assert {path.name for path in out.glob(".*")} == {".mine"}
    assert (out / "latents.npz").read_bytes() == whole[0]["latents.npz"]


def test_parts_join_to_the_same_results(files, whole, tmp_path):
    out = tmp_path / "out"
    jobs = [Doubled(), Doubled()]
    first = run(files, out, job=jobs[0], shard=Shard(0, 2))
    assert first["status"] == "part done" and first["num_left"] == 4
    assert not (out / "report.json").exists()
    last = run(files, out, job=jobs[1], shard=Shard(1, 2))
    assert last["status"] == "done" and last["num_images"] == 10 and last["num_new"] == 4
    assert sorted(jobs[0].loaded) == ["p0", "p1", "p2", "p3", "p8", "p9"]
    assert sorted(jobs[1].loaded) == ["p4", "p5", "p6", "p7"]
    assert contents(out) == whole[0]
    # One process sees what the parts did.
    assert run(files, out, job=Doubled(hook=lambda *a: pytest.fail("again")))["num_new"] == 0
    assert last["sum"] == whole[1]["sum"]


def test_parts_at_the_same_time(files, whole, tmp_path):
    out, reports = tmp_path / "out", {}

    def part(index):
        reports[index] = run(files, out, shard=Shard(index, 3))

    threads = [threading.Thread(target=part, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3 and any(report["status"] == "done" for report in reports.values())
    assert contents(out) == whole[0]


def test_a_part_that_was_lost_is_done_by_another_division(files, whole, tmp_path):
    out = tmp_path / "out"
    run(files, out, shard=Shard(0, 2))
    job = Doubled()
    assert run(files, out, job=job)["num_images"] == 10
    assert sorted(job.loaded) == ["p4", "p5", "p6", "p7"]
    assert contents(out) == whole[0]


def test_one_process_a_part(files, tmp_path):
    out = tmp_path / "out"
    with Progress(out, command="double", options={"factor": 2}, shard=Shard(0, 2)) as progress:
        progress.add([{"name": "other", "at": 0}])
        with pytest.raises(InputError, match="another process is writing it; wait for its end"):
            run(files, out, shard=Shard(0, 2))
        with pytest.raises(InputError, match="another process is writing it, in 2 parts"):
            run(files, out)
        assert run(files, out, shard=Shard(1, 2))["status"] == "part done"


def test_bad_images_are_skipped_within_the_budget(files, tmp_path, capfd):
    (files / "p2.png").write_bytes(b"bad")
    (files / "p7.png").unlink()
    (files / "p7.png").symlink_to("nowhere")
    source = ImageFiles([files / f"p{i}.png" for i in range(10)])
    out = tmp_path / "out"
    with pytest.raises(InputError, match="2 of 10 images cannot be used, .*0.05 allows: .*p2.png"):
        run_job(Doubled(), source, out, max_skipped=0.05)
    assert (out / "p0.out").exists() and not (out / "report.json").exists()
    capfd.readouterr()
    report = run_job(Doubled(), source, out, max_skipped=0.2)
    assert report["num_images"] == 8 and report["num_skipped"] == 2
    assert sorted(Path(file).name for file in report["skipped"]) == ["p2.png", "p7.png"]
    err = capfd.readouterr().err
    assert f"interestyle: skipped: {files / 'p2.png'}: is bad" in err and "p7.png" in err
    with np.load(out / "latents.npz") as latents:
        assert "p2" not in latents["names"]
    # Another run tries them again.
    (files / "p2.png").write_bytes(b"2image")
    assert run_job(Doubled(), source, out, max_skipped=0.2)["num_images"] == 9
    # What became bad leaves no result behind.
    (files / "p0.png").write_bytes(b"bad")
    assert run_job(Doubled(), source, out, max_skipped=0.2)["num_skipped"] == 2
    assert not (out / "p0.out").exists()
    with pytest.raises(InputError, match="--max-skipped: 2, expected a share"):
        run_job(Doubled(), source, out, max_skipped=2)


def test_no_usable_image_leaves_nothing(files, tmp_path):
    for path in files.iterdir():
        path.write_bytes(b"bad")
    with pytest.raises(InputError, match="images cannot be used"):
        run(files, tmp_path / "new" / "out")
    with pytest.raises(InputError, match="no image can be used: .*is bad"):
        run(files, tmp_path / "out2", max_skipped=1)
    assert not (tmp_path / "new").exists()


def test_folders_of_others(files, whole, tmp_path):
    out = tmp_path / "whole"
    with pytest.raises(InputError, match="was begun with factor 2, now it is 3; choose another"):
        run(files, out, job=Doubled({"factor": 3}))
    other = Doubled()
    other.command = "halve"
    with pytest.raises(InputError, match="belongs to the command double, not halve"):
        run(files, out, job=other)
    assert contents(out) == whole[0]
    for name in ("p4.out", "report.json"):
        foreign = tmp_path / f"foreign {name}"
        foreign.mkdir()
        (foreign / name).write_text("mine")
        with pytest.raises(InputError, match=f"{name}: exists already and is not of this command"):
            run(files, foreign)
        assert [path.name for path in foreign.iterdir()] == [name]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "progress.jsonl").write_text("{}\n{}\n")
    with pytest.raises(InputError, match="is not of this command"):
        run(files, tmp_path / "odd")
    lines = (out / "progress.jsonl").read_bytes().splitlines(keepends=True)
    (out / "progress.jsonl").write_bytes(lines[0] + b"x\n" + b"".join(lines[1:]))
    with pytest.raises(InputError, match="line 2 is damaged"):
        run(files, out)
    # A value of another type, as JSON in good order.
    changed = lines[3].replace(b'"outputs": {', b'"outputs": 1, "more": {')
    assert changed != lines[3]
    (out / "progress.jsonl").write_bytes(b"".join([*lines[:3], changed, *lines[4:]]))
    with pytest.raises(InputError, match="line 4 is damaged"):
        run(files, out)
    header = lines[0].replace(b'"options": {', b'"options": 1, "more": {')
    assert header != lines[0]
    (out / "progress.jsonl").write_bytes(b"".join([header, *lines[1:]]))
    with pytest.raises(InputError, match="line 1 is damaged"):
        run(files, out)


def test_a_full_disk_is_the_machines_failure(files, whole, tmp_path, monkeypatch):
    def full(path, content, **options):
        raise MachineError(f"{path}: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_whole", full)
        with pytest.raises(MachineError, match="No space left"):
            run(files, tmp_path / "out")
    run(files, tmp_path / "out")
    assert contents(tmp_path / "out") == whole[0]


def test_few_images_are_held_at_once(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i:03d}.png").write_bytes(b"image")
    held, most, lock = [0], [0], threading.Lock()

    def count(stage, what):
        if stage == "save":
            time.sleep(0.002)
        with lock:
            held[0] += {"load": 1, "save": -1}.get(stage, 0)
            most[0] = max(most[0], held[0])

    run(folder, tmp_path / "out", job=Doubled(hook=count))
    assert held[0] == 0 and most[0] <= 40


def test_loading_goes_on_while_the_device_works(files, tmp_path):
    """The next batch is loaded, and started, before the last one's results are asked for."""
    order = []

    class Device:
        """A result that is asked for."""

        def __init__(self, value, number):
            self.value, self.number = value, number

        def __array__(self, dtype=None, copy=None):
            order.append(f"fetch {self.number}")
            return self.value

    class Slow(Doubled):
        def compute(self, rows):
            order.append(f"start {len(self.rows)}")
            return Device(super().compute(rows), len(self.rows) - 1)

    run(files, tmp_path / "out", job=Slow())
    assert order == ["start 0", "start 1", "fetch 0", "start 2", "fetch 1", "fetch 2"]
