"""A page that runs, in an environment that has Gradio."""

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """An interpreter with this environment's packages and, before them, those of [serve]."""
    folder = tmp_path_factory.mktemp("page") / "environment"
    venv.create(folder, symlinks=True, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "libraries.pth").write_text("\n".join(libraries))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["serve"]
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", *extra, "pillow<13"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield python
    # pytest keeps its folders of several runs.
    shutil.rmtree(folder)


@pytest.fixture
def page(python, tmp_path):
    """The address of a page that runs, and its process."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [python, "-m", "interestyle_jax", "serve", "--port=7917"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    try:
        line = process.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:7917", line)
        assert address, log.read_text()
        yield address[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
