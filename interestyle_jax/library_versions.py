"""The versions that runs, reports and weight directories record."""

import platform
from importlib import metadata

LIBRARIES = ("interestyle_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute, "not installed" where one is not."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
