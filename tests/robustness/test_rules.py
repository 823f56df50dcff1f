"""The fuzzer notices what it looks for, and its inputs are whole before they are damaged."""

import pickle
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax import cli
from tests.robustness import cases, damage
from tests.robustness.stand_ins import put_in_place
from tests.robustness.whole_inputs import INPUTS

LINE = "interestyle: error: a: is damaged"


@pytest.mark.parametrize("kind", INPUTS)
def test_whole_inputs_are_read(kind, whole_inputs, folder, monkeypatch):
    put_in_place(monkeypatch, networks=INPUTS[kind].networks)
    # What may be damaged and what else is needed is all that a command sees.
    for command in dict.fromkeys(INPUTS[kind].commands):
        folders = {"checkpoint": "checkpoints", "direction": "directions"}
        names = ["plain_png.png"]
        if kind in folders:
            names = sorted(path.name for path in (whole_inputs / folders[kind]).iterdir())
        for name in names if "FILE" in command else ("",):
            shutil.rmtree(folder, ignore_errors=True)
            cases.lay_out(kind, whole_inputs, folder)
            case = cases.Case(kind, cases.words(command, name), ())
            outcome, broken = cases.run(case, folder)
            assert outcome.status == 0, f"{case}\n{outcome.stderr}"
            assert not broken, f"{case}: {broken}"


def a_traceback():
    raise KeyError("a")


def a_traceback_on_stderr():
    print(f"Traceback (most recent call last):\n{LINE}", file=sys.stderr)
    return 2


def no_line():
    return 2


def two_lines():
    print(f"{LINE}\n{LINE}", file=sys.stderr)
    return 2


def another_status():
    return 3


def a_log():
    print(f"WARNING:root:careful\n{LINE}", file=sys.stderr)
    return 2


def a_warning():
    warnings.warn("careful", UserWarning, stacklevel=1)
    print(LINE, file=sys.stderr)
    return 2


def a_half_written_result():
    Path("out").mkdir()
    Path("out/a.png").touch()
    print(LINE, file=sys.stderr)
    return 2


def a_result_that_is_missing():
    Path("out").mkdir()
    return 0


def a_temporary_file():
    tempfile.mkdtemp()
    return 0


def a_file_beside():
    Path(".a.png.1").touch()
    return 0


def a_changed_input():
    Path("images/plain_png.png").write_bytes(b"")
    return 0


def a_hang():
    while True:
        pass


def a_pickle_read():
    Path("a.pkl").write_bytes(damage.payload(Path("canary")))
    pickle.loads(Path("a.pkl").read_bytes())
    return 0


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        (a_traceback, "a traceback"),
        (a_traceback, "status None"),
        (a_traceback_on_stderr, "a traceback"),
        (no_line, "0 lines of error"),
        (two_lines, "2 lines of error"),
        (another_status, "status 3"),
        (a_log, "none of ours"),
        (a_warning, "none of ours"),
        (a_half_written_result, "half-written: out, out/a.png"),
        (a_result_that_is_missing, "not whole"),
        (a_temporary_file, "left behind: tmp/"),
        (a_file_beside, "left behind: .a.png.1"),
        (a_changed_input, "changed or left behind: images/plain_png.png"),
        (a_hang, "hung"),
        (a_pickle_read, "executed"),
    ],
)
def test_every_rule_can_be_broken(whole_inputs, folder, monkeypatch, command, rule):
    cases.lay_out("image", whole_inputs, folder)
    monkeypatch.setattr(cli, "main", lambda argv: command())
    # With damaged weights nothing is begun that could be resumed.
    case = cases.Case("weights", ("invert", "--out=out"), ())
    broken = cases.run(case, folder, seconds=0.5)[1]
    assert any(rule in text for text in broken), broken


def test_a_seed_is_a_case(whole_inputs, tmp_path):
    """The same damage again, and another seed's another."""
    for number in range(0, 40, 3):
        found = []
        for seed in (1, 1, 2):
            folder = tmp_path / "case"
            case = cases.prepare(seed, number, whole_inputs, folder)
            found.append((str(case), cases.tree(folder)))
            shutil.rmtree(folder)
        assert found[0] == found[1] != found[2]


def test_damaged_archives_hold_no_time_of_day(whole_inputs, tmp_path, monkeypatch):
    source, found = whole_inputs / "checkpoints/direction.pt", []
    for year in (2001, 2002):
        then = time.struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0))
        monkeypatch.setattr(time, "localtime", lambda seconds=None, then=then: then)
        path = Path(shutil.copy(source, tmp_path / f"{year}.pt"))
        damage._archive(np.random.default_rng(0), path, tmp_path / "canary")
        found.append(path.read_bytes())
    assert found[0] == found[1] != source.read_bytes()


def test_every_kind_of_damage_is_drawn(whole_inputs, tmp_path):
    """Of bytes, of fields and of files: no branch is dead."""
    done, rng = set(), np.random.default_rng(0)
    sources = [whole_inputs / "config.py", whole_inputs / "weights/generator/metadata.json"]
    sources.append(whole_inputs / "checkpoints/direction.pt")
    for _ in range(1000):
        shutil.rmtree(tmp_path / "files", ignore_errors=True)
        (tmp_path / "files").mkdir()
        paths = [Path(shutil.copy(source, tmp_path / "files")) for source in sources]
        done.add(damage.damage_file(rng, paths[rng.integers(3)], tmp_path / "canary"))
    for word in (
        *("cut at", "flip at", "zero at", "insert at", "remove at", "swap at", "add at"),
        *("replace field", "remove field", "add field", "as a whole", "100,000 brackets"),
        *("entry direction/data.pkl", "a pickle that executes", "content 0 of", "content 2 of"),
        *("nothing instead", "directory instead", "dead link instead", "circular link instead"),
    ):
        assert any(word in text for text in done), word
