"""Data flows one way between the packages, and only the models know Flax Linen."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "interestyle_jax"
# A package may import itself and those named here; files beside the packages are free to all.
MAY_IMPORT = {
    "models": set(),
    "parallel": set(),
    "config": {"interest", "inversion"},
    "data": set(),
    "interest": {"data"},
    "photos": {"models", "data"},
    "video": {"photos"},
    "inversion": {"models", "data", "interest", "parallel"},
    "editing": {"photos", "models", "data", "interest", "inversion", "evaluation", "parallel"},
    "training": {"config", "models", "data", "interest", "inversion", "parallel"},
    "planning": {"models", "data", "inversion", "parallel", "training"},
    "evaluation": {"photos", "models", "data", "interest", "inversion", "parallel"},
    "export": {"models", "inversion", "editing"},
    "page": {"data", "interest", "photos", "inversion", "editing", "evaluation", "jobs"},
    "jobs": {
        "data",
        "interest",
        "photos",
        "video",
        "inversion",
        "editing",
        "evaluation",
        "parallel",
    },
    "commands": {
        "config",
        "parallel",
        "data",
        "interest",
        "photos",
        "video",
        "inversion",
        "editing",
        "training",
        "evaluation",
        "export",
        "jobs",
        "planning",
        "page",
    },
}


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_package_is_known():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"assets"}
    assert packages == set(MAY_IMPORT)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_package_imports_no_later_package(package):
    files = sorted((PACKAGE / package).rglob("*.py"))
    assert files
    for path in files:
        packages = {
            name.split(".")[1]
            for name in imported_names(path)
            if name.startswith("interestyle_jax.")
        }
        assert packages & set(MAY_IMPORT) <= MAY_IMPORT[package] | {package}, path
        assert not packages & {"cli"}, path


def test_only_models_import_linen():
    for path in sorted(PACKAGE.rglob("*.py")):
        linen = {name for name in imported_names(path) if name.startswith("flax.linen")}
        assert not linen or path.relative_to(PACKAGE).parts[0] == "models", path


# The one file that runs PyTorch: networks of transformers, read from safetensors.
TORCH_ALLOWED = PACKAGE / "interest" / "providers" / "transformers_network.py"


def test_nothing_unpickles():
    for path in sorted(PACKAGE.rglob("*.py")):
        modules = {name.split(".")[0] for name in imported_names(path)}
        forbidden = {"pickle", "cloudpickle", "dill", "torch", "tensorflow"}
        assert not modules & (forbidden - ({"torch"} if path == TORCH_ALLOWED else set())), path


def test_transformers_runs_no_foreign_code_and_reads_safetensors_alone():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                assert path == TORCH_ALLOWED
                given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert given["trust_remote_code"] is False
                is_config = getattr(node.func.value, "attr", "") == "AutoConfig"
                assert is_config or given["use_safetensors"] is True
