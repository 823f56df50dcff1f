"""launch/quickstart.sh and the virtual environment that it makes, with a Python that only notes."""

import os
import shutil
import subprocess

import pytest

from tests.launch.stand_ins import ROOT, run_here

# What says what is installed.
INSTALLED = ["pyproject.toml", "setup.py", "constraints.txt"]


def test_quickstart_rejects_an_unknown_argument():
    done = run_here("bash", "launch/quickstart.sh", "--die=here")
    assert done.returncode == 2
    assert done.stderr == "error: unknown argument '--die=here'; see --help\n"


def test_scripts_name_an_old_python_and_the_stage(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    copy = tmp_path / "copy"
    (copy / "launch").mkdir(parents=True)
    for name in ["launch/environment.sh", "launch/test.sh", *INSTALLED]:
        shutil.copy(ROOT / name, copy / name)
    environment = os.environ | {"PYTHON": str(old)}
    done = run_here("bash", str(copy / "launch/test.sh"), env=environment)
    assert done.returncode == 2
    assert f"{old} is Python 3.8.1, 3.11 or later is needed" in done.stderr
    assert "FAILED: install into .venv" in done.stderr


@pytest.fixture
def scripts(tmp_path):
    """A copy of the scripts with a finished .venv, whose Python only notes what it should run."""
    for name in ["launch/environment.sh", "launch/quickstart.sh", *INSTALLED]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "installed-base").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(
        "#!/bin/bash\n"
        'echo "$3" >>log; echo "$*" >>arguments; echo "$JAX_NUM_CPU_DEVICES" >devices\n'
        '[[ $3 == "$FAIL" ]] && exit 7\n'
        "case $3 in\n"
        "  data) mkdir -p here/data ;;\n"
        "  train) mkdir -p here/run/weights && : >>here/run/weights/metadata.json ;;\n"
        # File times tick every few milliseconds; the script asks which file is newer.
        "  evaluate)\n"
        '    if [[ " $* " == *" --num-samples=8 "* ]]; then\n'
        "      mkdir -p here/shipped/figures\n"
        "      touch here/shipped/figures/grid_avatar_interestyle.png\n"
        "    else\n"
        "      sleep 0.05; mkdir -p here/report && echo the table >here/report/table.md\n"
        "    fi ;;\n"
        "esac\n"
    )
    python.chmod(0o755)
    return tmp_path


def quickstart(scripts, fail=""):
    command = ["bash", str(scripts / "launch/quickstart.sh"), "--dir=here"]
    return run_here(*command, env=os.environ | {"FAIL": fail})


def test_quickstart_repeats_only_what_is_unfinished(scripts):
    first = quickstart(scripts, fail="train")
    assert first.returncode == 7
    assert "FAILED: train the encoder (exit status 7" in first.stderr
    assert (scripts / "log").read_text().split() == ["data", "evaluate", "train"]
    grid = "here/shipped/figures/grid_avatar_interestyle.png"
    before_training = first.stdout.partition("==> train the encoder")[0]
    assert f"inverted by the shipped encoder: {grid}\n" in before_training

    second, third = quickstart(scripts), quickstart(scripts)
    assert second.returncode == third.returncode == 0, second.stderr + third.stderr
    assert second.stdout.endswith("\nthe table\n") and third.stdout.endswith("\nthe table\n")
    steps = (scripts / "log").read_text().split()
    assert steps == ["data", "evaluate", "train", "train", "evaluate", "train"]


@pytest.mark.parametrize(
    ("cores", "chosen", "devices"),
    [(1, None, 1), (2, None, 2), (3, None, 2), (6, None, 4), (64, None, 4), (2, "1", 1)],
)
def test_the_quickstart_uses_the_cores(scripts, tmp_path, cores, chosen, devices):
    getconf = tmp_path / "bin/getconf"
    getconf.parent.mkdir()
    getconf.write_text(f"#!/bin/sh\necho {cores}\n")
    getconf.chmod(0o755)
    environment = os.environ | {"PATH": f"{getconf.parent}:{os.environ['PATH']}"}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    environment |= {} if chosen is None else {"JAX_NUM_CPU_DEVICES": chosen}
    done = run_here("bash", str(scripts / "launch/quickstart.sh"), "--dir=here", env=environment)
    assert done.returncode == 0, done.stderr
    assert (scripts / "devices").read_text() == f"{devices}\n"


@pytest.mark.parametrize("name", INSTALLED)
def test_a_change_of_what_is_installed_installs_again(scripts, name):
    future = (scripts / ".venv" / "installed-base").stat().st_mtime + 10
    code = "source launch/environment.sh && install_environment"

    def install():
        return subprocess.run(["bash", "-c", code], cwd=scripts, capture_output=True, text=True)

    assert "up to date" in install().stdout
    os.utime(scripts / name, (future, future))
    assert install().stdout == ""
    assert "--editable" in (scripts / "arguments").read_text()
