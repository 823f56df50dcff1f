"""Builds the API reference from the docstrings: `bash launch/docs.sh`, see there."""

import importlib
import pkgutil
import re
import sys
import typing
import warnings
from pathlib import Path

import jax
import pdoc
from flax.linen.module import ParentDescriptor

import interestyle_jax


def build(out: Path) -> None:
    """Writes one page per module to `out`, `index.html` first; warnings of pdoc are errors."""
    # Types by the names that users import, before jaxtyping's annotations take them.
    jax.Array.__name__ = jax.Array.__qualname__ = "Array"
    jax.sharding.Mesh.__module__ = "jax.sharding"
    ParentDescriptor.__doc__ = "@private"  # A field of every network, of no use to callers.
    for name in interestyle_jax.__all__:  # Loaded when first used; pdoc shows what is there.
        setattr(interestyle_jax, name, getattr(interestyle_jax, name))
    warnings.filterwarnings("error", module=r"pdoc\b")
    found = pkgutil.walk_packages(interestyle_jax.__path__, "interestyle_jax.")
    names = [module.name for module in found if not module.name.endswith("__main__")]
    for module in (interestyle_jax, *map(importlib.import_module, names)):
        if hasattr(module, "__path__") and hasattr(module, "__all__"):
            # pdoc leaves out submodules that `__all__` does not name.
            modules = [module.name for module in pkgutil.iter_modules(module.__path__)]
            module.__all__ = [*module.__all__, *(name for name in modules if name != "__main__")]
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                # The class's docstring has the fields; Python's says "Alias for field number 0".
                value.__new__.__doc__ = None
                for field in value._fields:
                    getattr(value, field).__doc__ = None
            if typing.is_typeddict(value):
                # Such a class does not know which fields it has from another.
                name = re.escape(f"{value.__module__}.{value.__qualname__}.")
                warnings.filterwarnings("ignore", f"Cannot determine where {name}")
    pdoc.render.configure(
        docformat="google", footer_text=f"interestyle_jax {interestyle_jax.__version__}"
    )
    pdoc.pdoc("interestyle_jax", output_directory=out)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
