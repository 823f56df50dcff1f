"""`interestyle masks`: what it writes, resumption, bad images, and files that are not its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.errors import InputError
from interestyle_jax.jobs.masks import MaskJob, write_masks

LABELS = {"background": 0, "skin": 1, "hair": 17}


def draw(folder: Path, count: int, *, first: int = 0) -> None:
    """Images folder/images/I.png, label maps folder/labels/I.png in the order face-parsing.

    Image 0 has no face, image 1 a tiny one, the others skin left and hair right of a border.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
            folder / "images" / f"{i}.png"
        )
        labels = np.zeros((20, 30), np.uint8)
        if i == 1:
            labels[0, :3] = 1
        elif i > 1:
            border = 5 + i % 20
            labels[:10, :border], labels[:10, border:] = 1, 17
        Image.fromarray(labels).save(folder / "labels" / f"{i}.png")


@pytest.fixture
def data(tmp_path):
    draw(tmp_path, 6)
    return tmp_path


def options(folder):
    return {"labels": folder / "labels", "order": "face-parsing"}


def run(folder, out="out", **changes):
    arguments = {"provider": "celebamask", "options": options(folder), "workers": 0} | changes
    return write_masks(folder / "images", folder / out, **arguments)


def contents(out):
    """{path: bytes} of everything but the report and the record, which hold times and paths."""
    own = ("report.json", "progress.jsonl")
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    return {k: v for k, v in files.items() if k not in own}


def test_command_writes_masks_sheets_and_a_report(data, capsys):
    arguments = [
        "masks", "--provider=celebamask", f"--images={data / 'images'}", f"--out={data / 'out'}",
        f"--labels={data / 'labels'}", "--order=face-parsing", "--workers=0",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "masks of 6 images, 0 skipped; interest region empty in 16.7 %, below 1 % of the " in (
        capsys.readouterr().out
    )
    for i in range(6):
        labels = np.array(Image.open(data / "labels" / f"{i}.png"))
        for part, expected in {
            "labels": labels,
            "interest": 255 * np.isin(labels, (1, 17)),
            "face": 255 * (labels == 1),
        }.items():
            with Image.open(data / "out" / part / f"{i}.png") as file:
                assert file.mode == "L"
                np.testing.assert_array_equal(np.array(file), expected)
    report = json.loads((data / "out" / "report.json").read_text())
    assert report["interest"] | {"mean_share": 0} == {
        "mean_share": 0,
        "median_share": 0.5,
        "empty": 1 / 6,
        "tiny": 1 / 6,
        "tiny_below": 0.01,
        "empty_images": ["0"],
        "tiny_images": ["1"],
    }
    assert report["interest"]["mean_share"] == pytest.approx((4 * 0.5 + 3 / 600) / 6)
    assert report["labels"].keys() == LABELS.keys()
    assert [report["labels"][name]["images"] for name in LABELS] == [6, 5, 4]
    assert report["num_images"] == report["new_images"] == 6 and report["skipped"] == []
    assert report["command"][:2] == ["interestyle", "masks"] and report["sheets"] == 1
    # One row of five and one of one, 256 wide with captions and gaps.
    with Image.open(data / "out" / "overlays" / "sheet_000.png") as sheet:
        assert sheet.size == (5 * 260 + 4, 2 * 278 + 4)
    assert not list((data / "out").rglob(".*"))


def test_a_second_run_does_what_is_new_alone(data, monkeypatch):
    run(data)
    before = {p: p.stat().st_mtime_ns for p in (data / "out" / "interest").iterdir()}
    draw(data, 2, first=6)
    (data / "images" / "3.png").write_bytes((data / "images" / "4.png").read_bytes() + b"0")
    (data / "out" / "labels" / "5.png").unlink()
    os.utime(data / "images" / "2.png")
    report = run(data)
    assert report["num_images"] == 8 and report["new_images"] == 5
    after = {p: p.stat().st_mtime_ns for p in before}
    changed = {p.stem for p in before if after[p] != before[p]}
    assert changed == {"2", "3", "5"}
    monkeypatch.setattr(MaskJob, "load", None)
    assert run(data)["new_images"] == 0
    # What the report alone depends on may be asked for anew.
    assert run(data, tiny=0.6)["interest"]["tiny"] > 0.5


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
    draw(tmp_path, 40)
    save, calls = MaskJob.save, []

    def stop(*arguments):
        if len(calls) == 20:
            raise KeyboardInterrupt
        calls.append(arguments)
        return save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MaskJob, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert not (tmp_path / "out" / "report.json").exists()
    # A line that was cut off counts for nothing.
    record = tmp_path / "out" / "progress.jsonl"
    record.write_bytes(record.read_bytes() + b'{"name": "2')
    done = record.read_bytes().count(b'"outputs"')
    assert 10 <= done <= 20
    assert run(tmp_path)["new_images"] == 40 - done
    run(tmp_path, "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


KILLED = """
import sys
from interestyle_jax.jobs import run
run.COMMIT_SECONDS = 0
from interestyle_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_command_goes_on(tmp_path):
    draw(tmp_path, 120)
    command = [
        sys.executable, "-c", KILLED, "masks", "--provider=celebamask",
        f"--images={tmp_path / 'images'}", f"--out={tmp_path / 'out'}", "--workers=0",
        f"--labels={tmp_path / 'labels'}", "--order=face-parsing", "--sheets=0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    record = tmp_path / "out" / "progress.jsonl"
    limit = time.monotonic() + 60
    while not record.is_file() or record.read_bytes().count(b'"outputs"') < 16:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lines = record.read_bytes().splitlines(keepends=True)
    done = sum(b'"outputs"' in line and line.endswith(b"\n") for line in lines)
    report = run(tmp_path, num_sheets=0)
    assert report["num_images"] == 120 and report["new_images"] == 120 - done
    run(tmp_path, "whole", num_sheets=0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_threads_write_the_same(data):
    run(data)
    report = run(data, "parallel", workers=2)
    assert report["num_images"] == 6
    assert contents(data / "parallel") == contents(data / "out")


def test_two_parts_write_what_one_process_does(data, capsys):
    run(data)
    # A batch is an image here.
    arguments = [
        "masks", "--provider=celebamask", f"--images={data / 'images'}", f"--out={data / 'parts'}",
        f"--labels={data / 'labels'}", "--order=face-parsing",
    ]  # fmt: skip
    assert main([*arguments, "--shard=1/2"]) == 0
    assert f"{data / 'parts'}: masks of 3 images, 3 are left" in capsys.readouterr().out
    assert main([*arguments, "--shard=0/2"]) == 0
    assert "masks of 6 images, 0 skipped" in capsys.readouterr().out
    parts = contents(data / "parts")
    assert {k: v for k, v in parts.items() if not k.startswith(("progress", "."))} == contents(
        data / "out"
    )


def test_images_of_folders_below_and_given_paths(data):
    run(data)
    for i in range(6):
        target = data / "tree" / str(i % 2) / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        (data / "images" / f"{i}.png").rename(target)
    below = write_masks(
        data / "tree", data / "tree" / "out", provider="celebamask", options=options(data)
    )
    assert below["num_images"] == 6
    paths = sorted((data / "tree").glob("[01]/*.png"))
    write_masks(paths, data / "listed", provider="celebamask", options=options(data))
    assert contents(data / "listed") == contents(data / "tree" / "out") == contents(data / "out")
    with pytest.raises(InputError, match="has the same name as"):
        write_masks(
            [*paths, data / "labels" / "0.png"], data / "x", provider="celebamask",
            options=options(data),
        )  # fmt: skip


def test_few_bad_images_are_skipped_and_listed(tmp_path):
    draw(tmp_path, 100)
    (tmp_path / "images" / "7.png").write_bytes(b"no image")
    report = run(tmp_path, num_sheets=0)
    assert report["num_images"] == 99
    (skipped,) = report["skipped"]
    assert skipped["file"].endswith("/7.png") and "is not an image" in skipped["reason"]
    assert not (tmp_path / "out" / "interest" / "7.png").exists()
    (tmp_path / "labels" / "9.png").unlink()
    (tmp_path / "images" / "9.png").write_bytes((tmp_path / "images" / "8.png").read_bytes())
    draw(tmp_path, 1, first=7)
    # Mended images are done, finished ones whose labels are gone stay.
    report = run(tmp_path, num_sheets=0, max_skipped=0.01)
    assert len(report["skipped"]) <= 1 and (tmp_path / "out" / "interest" / "7.png").exists()


def test_many_bad_images_are_an_error_that_names_some(data, capsys):
    for i in (2, 3, 4, 5):
        (data / "labels" / f"{i}.png").unlink()
    with pytest.raises(
        InputError, match=r"4 of 6 images cannot be used, .*--max-skipped=0.01"
    ) as e:
        run(data)
    assert "2: there are no labels of that name" in str(e.value) and "and 1 more" in str(e.value)
    assert "\n" not in str(e.value)
    # What was finished stays, and a larger share lets it pass.
    assert run(data, max_skipped=0.7)["new_images"] == 0


def test_a_wrong_order_ends_the_run(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    labels = np.zeros((20, 20), np.uint8)
    labels[8, 4:8], labels[8, 12:16], labels[12:15, 9:11] = 4, 5, 2
    for i in range(3):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{i}.png")
    with pytest.raises(InputError, match="lie as in the order celebamask-hq"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()
    right = options(tmp_path) | {"order": "celebamask-hq"}
    assert run(tmp_path, options=right)["num_images"] == 3
    with pytest.raises(InputError, match="was begun with options .*choose another --out"):
        run(tmp_path)


def test_files_of_others_are_not_overwritten(data, capsys):
    out = data / "out"
    (out / "interest").mkdir(parents=True)
    (out / "interest" / "3.png").write_bytes(b"mine")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(
        InputError, match=r"interest/3.png: exists already and is not of this command"
    ):
        run(data)
    (out / "interest" / "3.png").rename(out / "kept.png")
    run(data)
    assert (out / "kept.png").read_bytes() == b"mine" and (out / "notes.txt").read_text() == "mine"
    # An image that came later, where somebody has put a file meanwhile.
    draw(data, 1, first=6)
    (out / "face").mkdir(exist_ok=True)
    (out / "face" / "6.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"face/6.png: exists already and is not of this command"):
        run(data)
    assert (out / "face" / "6.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: out.write_text("x"), "exists and is no folder"),
        (
            lambda out: (out.mkdir(), (out / "progress.jsonl").write_text("my own\n")),
            "progress.jsonl: is not of this command",
        ),
        (
            lambda out: (out.mkdir(), (out / "progress.jsonl").write_text('{"a": 1}\n{"b": 2}\n')),
            "progress.jsonl: is not of this command",
        ),
    ],
    ids=["file", "text", "JSON"],
)
def test_folders_of_others_are_refused(data, make, message):
    make(data / "out")
    with pytest.raises(InputError, match=message):
        run(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider=mouse"], "invalid choice: 'mouse'"),
        (["--provider=selfie", "--model=x"], "--model: no option of provider selfie"),
        (["--provider=selfie", "--tiny=2"], "--tiny: 2.0, expected a share from 0 to 1"),
        (["--provider=selfie", "--workers=-1"], "--workers: -1 is negative"),
        (["--provider=graphonomy", "--scales=0"], "expected numbers above 0"),
        (["--provider=graphonomy"], "--weights: graphonomy needs its converted checkpoint"),
        (["--provider=folder", "--labels=none", "--classes=2"], "none: no such directory"),
    ],
)
def test_bad_usage_is_told_in_a_line(data, arguments, message, capsys):
    places = [f"--images={data / 'images'}", f"--out={data / 'out'}"]
    assert main(["masks", *arguments, *places]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert not (data / "out" / "report.json").exists()


def test_selfie_command(shared_dir, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("female_00", "male_07"):
        with Image.open(shared_dir / "portraits" / f"{name}.jpg") as file:
            file.resize((256, 256)).save(tmp_path / "in" / f"{name}.jpg", quality=95)
    out = tmp_path / "out"
    assert main(["masks", "--provider=selfie", f"--images={tmp_path / 'in'}", f"--out={out}"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert 0.3 < report["interest"]["mean_share"] < 0.7
    assert sorted(p.name for p in out.iterdir()) == [
        "interest", "labels", "overlays", "progress.jsonl", "report.json",
    ]  # fmt: skip
