"""Leftovers are told from work that continues."""

import os
import subprocess
import sys
import threading
import time

import pytest

from interestyle_jax import unfinished
from interestyle_jax.unfinished import remove_leftovers, unfinished_file, unfinished_folder

MAKE = """
import os, sys
from pathlib import Path
from interestyle_jax.unfinished import unfinished_file, unfinished_folder
with unfinished_folder(Path("."), name="out") as folder, unfinished_file(Path("."), name="x.pt"):
    (folder / "half").write_text("half")
    print("made", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), 9)
"""


def test_only_what_killed_processes_left_is_removed(tmp_path):
    mine = [".out.settings", "out.interestyle-abcdefgh", ".interestyle-abc", "x"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", MAKE], cwd=tmp_path, **pipes)
    assert process.stdout.readline() == b"made\n"
    living = {p.name for p in tmp_path.iterdir()} - set(mine)
    assert len(living) == 2
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*mine, *living}
    process.communicate()
    assert process.returncode == -9
    assert {p.name for p in tmp_path.iterdir()} == {*mine, *living}
    # Whatever the work of the next process is called.
    with unfinished_folder(tmp_path, name="other") as folder:
        assert {p.name for p in tmp_path.iterdir()} == {*mine, folder.name}
    assert {p.name for p in tmp_path.iterdir()} == set(mine)


def test_what_is_finished_has_its_name_and_its_rights(tmp_path):
    with (
        unfinished_folder(tmp_path, name="out") as folder,
        unfinished_file(tmp_path, name="x") as file,
    ):
        assert folder.name.startswith(".out.") and file.name.startswith(".x.")
        os.replace(folder, tmp_path / "out")
        os.replace(file, tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("make", [unfinished_folder, unfinished_file])
def test_a_failure_leaves_nothing(tmp_path, make):
    with pytest.raises(KeyboardInterrupt), make(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_thread_that_still_writes_after_a_failure_leaves_nothing(tmp_path):
    def write(folder):
        time.sleep(0.15)
        (folder / "tree").mkdir(parents=True)
        (folder / "tree" / "late").write_text("late")

    with pytest.raises(OSError, match="full"), unfinished_folder(tmp_path) as folder:
        writer = threading.Thread(target=write, args=(folder,))
        writer.start()
        raise OSError("full")
    writer.join()
    assert not list(tmp_path.iterdir())


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    left = tmp_path / ".out.interestyle-abcdefgh"
    left.mkdir()
    monkeypatch.setattr(unfinished, "fcntl", None)
    remove_leftovers(tmp_path)
    assert left.is_dir()
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert not left.exists()
