"""The project around the code: version, command, what a wheel carries, links."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import interestyle_jax

ROOT = Path(__file__).resolve().parents[1]

# The repository's folders that travel in the wheel -> where they lie in it.
SHIPPED = {
    "interestyle_jax": Path("interestyle_jax"),
    "configs": Path("interestyle_jax/configs"),
    "tools/convert_weights": Path("interestyle_jax/convert_weights"),
}
# Names as in an Orbax tree: hidden, without a suffix, deep.
PLANTED = [
    "interestyle_jax/assets/planted/metadata.json",
    "interestyle_jax/assets/planted/variables/_METADATA",
    "interestyle_jax/assets/planted/variables/d/.zarray",
    "interestyle_jax/assets/planted/variables/.hidden/c/0.0",
]


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of this checkout, so that no build folder is left or reused."""
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ["setup.py", "pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md"]:
        shutil.copy(ROOT / name, source)
    for name in PLANTED:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"0")
    return source


def built(source: Path, kind: str) -> Path:
    """The file that setuptools' hook `build_{kind}` makes."""
    build = f"from setuptools import build_meta; build_meta.build_{kind}('{kind}')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (source / kind).glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(source):
    with zipfile.ZipFile(built(source, "wheel")) as opened:
        yield opened


def wheel_text(wheel, suffix: str) -> str:
    (name,) = [name for name in wheel.namelist() if name.endswith(suffix)]
    return wheel.read(name).decode()


def test_version_is_one(wheel):
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
    assert interestyle_jax.__version__ == newest
    assert re.search(r"^Version: (.*)$", wheel_text(wheel, "/METADATA"), re.MULTILINE)[1] == newest


def test_console_script_is_the_modules_main(wheel):
    parser = configparser.ConfigParser()
    parser.read_string(wheel_text(wheel, "/entry_points.txt"))
    target = parser["console_scripts"]["interestyle"]
    point = importlib.metadata.EntryPoint("interestyle", target, "console_scripts")
    assert callable(point.load())


def test_wheel_carries_every_file(wheel):
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {
        str(installed / path.relative_to(ROOT / folder))
        for folder, installed in SHIPPED.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"interestyle_jax/py.typed", "interestyle_jax/configs/demo.py"} <= files
    assert files | set(PLANTED) == shipped
    assert wheel_text(wheel, "/licenses/LICENSE").strip().startswith("Apache License")
    assert "Johan Melin" in wheel_text(wheel, "/licenses/THIRD_PARTY.md")


def test_editable_install_has_the_converter_and_no_tools(source, tmp_path):
    with zipfile.ZipFile(built(source, "editable")) as opened:
        opened.extractall(tmp_path)
    code = (
        f"import importlib.util, site; site.addsitedir({str(tmp_path)!r})\n"
        "print(importlib.util.find_spec('interestyle_jax.convert_weights').origin)\n"
        "print(importlib.util.find_spec('tools'))"
    )
    # Without the site packages, where this checkout itself may be installed.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(source / "tools/convert_weights/__init__.py"), "None"]


@pytest.mark.parametrize("command", ["-m interestyle_jax convert", "-m tools.convert_weights",
                                     "-m interestyle_jax.convert_weights"])  # fmt: skip
def test_converter_runs_from_a_checkout_under_every_name(command):
    done = run(sys.executable, *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: interestyle convert [-h]")


def test_converter_imports_itself_relatively():
    """So that it is one package under each of its names."""
    for path in (ROOT / "tools").rglob("*.py"):
        names = re.findall(r"^\s*(?:from|import) (\S+)", path.read_text(), re.MULTILINE)
        own = [n for n in names if n.startswith(("tools", "interestyle_jax.convert_weights"))]
        assert own == [], path


@pytest.fixture
def installed(source, tmp_path):
    """Runs a command of an empty environment that holds the wheel, in an empty folder."""
    venv.create(tmp_path / "environment", symlinks=True)
    python = tmp_path / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet"]
    done = run(*pip, "--no-deps", "--no-index", str(built(source, "wheel")))
    assert done.returncode == 0, done.stderr
    # All other packages are those of this environment, but not its .pth files: an editable install.
    packages = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "environment")})
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(packages) / "libraries.pth").write_text("\n".join(libraries))
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def start(name, *arguments):
        command = [str(python.with_name(name)), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start.folder = folder
    return start


@pytest.mark.slow
def test_installed_wheel_inverts_and_converts(installed, tmp_path):
    code = (
        "import importlib.util, interestyle_jax as ij\n"
        "from interestyle_jax.config.files import read_config\n"
        "assert read_config('ablation_ffhq:ind,smoke').num_steps == 2\n"
        "print(ij.__file__, importlib.util.find_spec('tools'))"
    )
    file, tools = installed("python", "-c", code).split()
    assert Path(file).is_relative_to(tmp_path / "environment") and tools == "None"
    folder = installed.folder
    shutil.copy(ROOT / "docs" / "results" / "inversion.png", folder / "image.png")
    invert = ["--input=image.png", "--steps=1"]
    installed("interestyle", "invert", "--weights=avatar_interestyle", "--out=there", *invert)
    installed("interestyle", "convert", "--to=pytorch", "avatar_interestyle", "encoder.pt")
    assert "encoder" in installed("interestyle", "convert", "encoder.pt", "back")
    installed("interestyle", "invert", "--weights=back", "--out=again", *invert)
    there, again = (np.load(folder / o / "latents.npz")["w_plus"] for o in ("there", "again"))
    np.testing.assert_allclose(again, there, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lpips_alex", "avatar_generator", "avatar_interestyle"])
def test_assets_are_there_and_small(name):
    directory = ROOT / "interestyle_jax" / "assets" / name
    assert (directory / "metadata.json").is_file()
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    assert size <= 12 * 2**20


def test_command_lists_its_commands():
    done = run(sys.executable, "-m", "interestyle_jax", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for command in ["train", "invert", "align", "evaluate", "data", "masks", "convert"]:
        assert re.search(rf"\b{command}\b", done.stdout)


def test_every_module_imports_without_tensorflow():
    code = (
        "import importlib, pkgutil, sys, interestyle_jax\n"
        "for module in pkgutil.walk_packages(interestyle_jax.__path__, 'interestyle_jax.'):\n"
        "    module.name.endswith('__main__') or importlib.import_module(module.name)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
