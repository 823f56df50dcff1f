"""What a resumed run does with damaged records of its own."""

import json
import threading

import pytest
from ml_collections import ConfigDict

from interestyle_jax.training.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "run", ConfigDict({"seed": 0}), ["test"])
    yield directory
    directory.close()


def test_damaged_lines_are_dropped(run):
    whole = [json.dumps({"step": step}) for step in (1, 2, 3)]
    damaged = ["", "{", '{"step": []}', '{"step": "2"}', "[1]", '{"loss": 1}', "[" * 100_000]
    lines = [line.encode() for pair in zip(whole, damaged[:3], strict=True) for line in pair]
    lines += [line.encode() for line in damaged[3:]] + [b"\xb7"]
    run.metrics_path.write_bytes(b"\n".join(lines))
    run.forget_after(2)
    assert run.metrics_path.read_text().splitlines() == whole[:2]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xb7", b'"completed"', b'{"status": "completed"}', b"[" * 100_000]
)
def test_a_damaged_report_is_none(run, content):
    (run.path / "report.json").write_bytes(content)
    assert run.finished_report() is None


def test_a_whole_report_is_read(run):
    run.report({"status": "completed", "last_step": 3})
    assert run.finished_report()["last_step"] == 3


def test_a_run_that_fails_before_its_first_line_leaves_no_thread(tmp_path):
    before = threading.active_count()
    run = RunDirectory(tmp_path / "run", ConfigDict({"seed": 0}), ["test"])
    assert threading.active_count() == before
    run.log(1, {"loss": 1.0})
    assert threading.active_count() > before
    run.close()
