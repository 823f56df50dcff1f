"""Arrays out of a pickle without running anything in it.

The pickle may name only what NumPy arrays need; even those names resolve to inert stand-ins, and
the arrays are rebuilt from their raw bytes afterwards. Any other name is refused.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError

NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
# Real and integer types; object arrays, which could nest anything, are not among them.
KINDS = "fiub"


def read_pickle(path: Path) -> dict[str, Any]:
    """The nested dicts of arrays in a pickle file.

    Raises:
      InputError: a global that arrays do not need (named in the message), a truncated file, or
        content other than nested dicts of plain arrays.
    """
    try:
        with path.open("rb") as file:
            content = _stand_in_unpickler(path)(file).load()
        return _build(content, path, "")
    except InputError:
        raise
    # A damaged pickle can raise nearly anything from inside the C reader.
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable pickle of arrays: {detail}") from error


class _Stub:
    """What the pickle says about one object: the arguments and the state, never acted upon."""

    __slots__ = ("args", "state")

    def __init__(self, *args: Any):
        self.args = args
        self.state = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _stand_in_unpickler(path: Path) -> type[pickle.Unpickler]:
    """An unpickler class with its own stand-ins, so that one file cannot affect the next."""

    class Array(_Stub):
        __slots__ = ()

    class Dtype(_Stub):
        __slots__ = ()

    class ArrayType(_Stub):
        __slots__ = ()

    allowed: dict[tuple[str, str], type] = {("numpy", "ndarray"): ArrayType}
    allowed[("numpy", "dtype")] = Dtype
    allowed.update({(module, "_reconstruct"): Array for module in NUMPY_MODULES})

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise InputError(
                    f"{path}: refused, the pickle names {module}.{name}; only NumPy arrays are read"
                )
            return allowed[module, name]

    return Unpickler


def _dtype(stub: Any) -> np.dtype:
    """The type from its text ("f4") and byte order, the second entry of its state."""
    dtype = np.dtype(stub.args[0])
    order = stub.state[1] if stub.state is not None else "="
    dtype = dtype.newbyteorder(order) if order in "<>" else dtype
    if dtype.kind not in KINDS:
        raise ValueError(f"array of type {dtype}, expected numbers")
    return dtype


def _build(value: Any, path: Path, key: str) -> Any:
    if isinstance(value, dict):
        return {k: _build(v, path, f"{key}/{k}" if key else str(k)) for k, v in value.items()}
    if not isinstance(value, _Stub) or not isinstance(value.state, tuple) or len(value.state) != 5:
        raise InputError(f"{path}: {key or 'content'} is {type(value).__name__}, expected an array")
    _, shape, dtype, fortran, raw = value.state
    array = np.frombuffer(raw, _dtype(dtype))
    return array.reshape(shape, order="F" if fortran else "C").astype(array.dtype.newbyteorder("="))
