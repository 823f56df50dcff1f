"""Which files travel with the package, that pyproject.toml cannot say; the rest is there."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = Path(__file__).parent / "interestyle_jax"
# A pattern such as assets/** leaves out hidden files, which Orbax trees may hold.
ASSETS = [str(f.relative_to(PACKAGE)) for f in (PACKAGE / "assets").rglob("*") if f.is_file()]
# The converter lies in tools/, from where `python -m tools.convert_weights` runs it, and the
# configs lie beside the package; an installed package has both inside.
MOVED = {
    f"interestyle_jax.{package}": f"tools/{package.replace('.', '/')}"
    for package in find_packages("tools")
} | {"interestyle_jax.configs": "configs"}

setup(
    packages=[*find_packages(include=["interestyle_jax", "interestyle_jax.*"]), *MOVED],
    package_dir=MOVED,
    package_data={"interestyle_jax": [*ASSETS, "planning/gpus/*.txtpb", "py.typed"]},
)
