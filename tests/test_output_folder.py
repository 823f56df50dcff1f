"""Results appear together, or not at all."""

import errno
import subprocess
import sys

import pytest

from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.output_folder import output_folder


def test_files_move_in_at_the_end_beside_others(tmp_path):
    out = tmp_path / "deep" / "out"
    with output_folder(out) as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.png").write_text("new")
        (folder / "table.md").write_text("new")
        assert not (out / "table.md").exists()
    (out / "mine.txt").write_text("mine")
    with output_folder(out) as folder:
        (folder / "table.md").write_text("newer")
    found = {str(p.relative_to(out)): p.read_text() for p in out.rglob("*") if p.is_file()}
    assert found == {"figures/a.png": "new", "table.md": "newer", "mine.txt": "mine"}
    assert sorted(p.name for p in out.iterdir()) == ["figures", "mine.txt", "table.md"]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_nothing_remains_of_a_failure(tmp_path, error):
    with pytest.raises(error), output_folder(tmp_path / "deep" / "out") as folder:
        (folder / "half.png").write_text("half")
        raise error("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays_after_a_failure(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError), output_folder(tmp_path) as folder:
        (folder / "half.png").write_text("half")
        raise InputError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="is no folder"), output_folder(file):
        pass


def test_a_full_disk_names_the_folder(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(MachineError, match="out: cannot be written: No space left on device"):
        with output_folder(tmp_path / "out"):
            raise full
    # An error that names its file stays as it is.
    with pytest.raises(OSError) as error, output_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")
    assert error.value.filename == "elsewhere"


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from interestyle_jax.output_folder import output_folder\n"
        "with output_folder(Path('.')) as folder:\n"
        "    (folder / 'half.png').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    with output_folder(tmp_path) as folder:
        (folder / "a.png").write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
