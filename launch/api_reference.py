"""Builds the API reference from the docstrings: `bash launch/docs.sh`, see there."""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import jax
import pdoc

import interestyle_jax


def build(out: Path) -> None:
    """Writes one page per module to `out`, `index.html` first; warnings of pdoc are errors."""
    # Types by the names that users import, before jaxtyping's annotations take them.
    jax.Array.__name__ = jax.Array.__qualname__ = "Array"
    jax.sharding.Mesh.__module__ = "jax.sharding"
    for name in interestyle_jax.__all__:  # Loaded when first used; pdoc shows what is there.
        setattr(interestyle_jax, name, getattr(interestyle_jax, name))
    # pdoc leaves out submodules of a package with an `__all__` that does not name them.
    found = pkgutil.walk_packages(interestyle_jax.__path__, "interestyle_jax.")
    packages = [importlib.import_module(module.name) for module in found if module.ispkg]
    for package in (interestyle_jax, *packages):
        if hasattr(package, "__all__"):
            modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
            package.__all__ = [*package.__all__, *(m for m in modules if m != "__main__")]
    warnings.filterwarnings("error", module=r"pdoc\b")
    pdoc.render.configure(
        docformat="google", footer_text=f"interestyle_jax {interestyle_jax.__version__}"
    )
    pdoc.pdoc("interestyle_jax", output_directory=out)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
