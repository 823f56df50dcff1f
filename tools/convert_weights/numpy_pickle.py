"""Stand-ins for what NumPy's pickles name: inert until the arrays are rebuilt from raw bytes.

NumPy's own functions are never called on a file's arguments: a crafted type could make them read
its bytes as addresses.
"""

from pathlib import Path
from typing import Any

import numpy as np

MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
# Real and integer types; object arrays, which could nest anything, are not among them.
KINDS = "fiub"
TEXT_KINDS = "US"


class Stub:
    """What the pickle says about one object: the arguments and the state, never acted upon."""

    def __init__(self, *args: Any):
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self, path: Path, key: str) -> Any:
        """The array that this stands for."""
        raise ValueError(f"{key or 'content'} is a bare name, expected an array")


class Array(Stub):
    """numpy.core.multiarray._reconstruct, whose arguments say nothing and whose state all."""

    def parts(self, key: str) -> tuple[tuple[int, ...], np.dtype, bool, Any]:
        """Shape, type, whether columns come first, and the bytes."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError(f"{key or 'content'} is no array")
        _, shape, dtype, fortran, raw = self.state
        return shape, _dtype(dtype), fortran, raw

    def build(self, path: Path, key: str) -> np.ndarray:
        """See `Stub.build`."""
        shape, dtype, fortran, raw = self.parts(key)
        if dtype.kind not in KINDS:
            raise ValueError(f"{key or 'content'} is an array of type {dtype}, expected numbers")
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="))


class Number(Stub):
    """numpy.core.multiarray.scalar: a type and the bytes of one number or text."""

    def build(self, path: Path, key: str) -> np.ndarray:
        """See `Stub.build`."""
        dtype, raw = self.args
        dtype = _dtype(dtype)
        if dtype.kind not in KINDS + TEXT_KINDS:
            raise ValueError(f"{key or 'content'} is of type {dtype}, expected a number")
        return np.frombuffer(raw, dtype, count=1).reshape(())


STAND_INS: dict[tuple[str, str], type[Stub]] = {
    ("numpy", "ndarray"): Stub,
    ("numpy", "dtype"): Stub,
    **{(module, "_reconstruct"): Array for module in MODULES},
    **{(module, "scalar"): Number for module in MODULES},
}


def _dtype(stub: Any) -> np.dtype:
    """The type from its text ("f4") and byte order, the second entry of its state."""
    dtype = np.dtype(stub.args[0])
    order = stub.state[1] if stub.state is not None else "="
    return dtype.newbyteorder(order) if order in "<>" else dtype
