"""A test that skips for a reason that is not expected fails, also in several processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
FILE = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="torch is not installed")
def test_expected():
    pass

@pytest.mark.skip(reason="too slow today")
def test_unexpected():
    pass
"""
MODULE = 'import pytest\npytest.skip("no such day", allow_module_level=True)\n'


def test_unexpected_skip_fails_in_several_processes(tmp_path):
    # As in a checkout: the shared folder lies beside the repository.
    (tmp_path / "shared").mkdir()
    tests = tmp_path / "repository" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(TESTS / "conftest.py", tests)
    shutil.copy(TESTS.parent / "pyproject.toml", tests.parent)
    (tests / "test_some.py").write_text(FILE)
    (tests / "test_module.py").write_text(MODULE)
    command = ["-m", "pytest", "-n2", "--dist=loadfile", "-p", "no:cacheprovider"]
    done = subprocess.run(
        # Without it the module's failure would end the run before the tests.
        [sys.executable, *command, "--continue-on-collection-errors"],
        cwd=tests.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
    )
    summary = done.stdout[done.stdout.index("short test summary") :]
    assert done.returncode == 1, done.stdout
    assert "SKIPPED [1] tests/test_some.py:7: torch is not installed" in summary
    assert "ERROR tests/test_some.py::test_unexpected - unexpected skip: too slow" in summary
    assert "ERROR tests/test_module.py - unexpected skip: no such day" in summary
    assert "1 passed, 1 skipped, 2 errors" in summary
