"""IntereStyle GAN inversion (Moon & Park, ECCV 2022) in JAX.

`interestyle_jax.load("avatar_interestyle").invert(images)` is the whole of it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from interestyle_jax.errors import InputError

if TYPE_CHECKING:
    from interestyle_jax.inversion.inverter import Inversion, Model, load

__version__ = "0.1.0"
__all__ = ["InputError", "Inversion", "Model", "__version__", "load"]

# A wheel has the converter as `interestyle_jax.convert_weights`; in a checkout it lies in tools/.
_HERE = Path(__file__).resolve().parent
if not (_HERE / "convert_weights").exists() and (_HERE.parent / "tools/convert_weights").is_dir():
    __path__.append(str(_HERE.parent / "tools"))


def __getattr__(name: str):
    # JAX takes a second to import: `interestyle --help` must not wait for it.
    if name in ("Inversion", "Model", "load"):
        from interestyle_jax.inversion import inverter

        return getattr(inverter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
