"""Arrays out of a pickle without running anything in it.

The pickle may name only what NumPy arrays, PyTorch tensors and NVIDIA's network pickles need; even
those names resolve to inert stand-ins, and the arrays are rebuilt from their raw bytes afterwards.
Any other name is refused. The one function that runs is `_latin1`, which turns text into bytes.
"""

import math
import mmap
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from interestyle_jax.errors import InputError, file_error

from .network_pickle import NETWORK_STAND_INS, Persistent
from .numpy_pickle import STAND_INS, Array, Stub
from .torch_file import MOST_VALUES, network_object

READ = "only arrays, tensors and stylegan2-ada-pytorch's networks are read"
TENSORFLOW = "it is of TensorFlow's StyleGAN2, expected stylegan2-ada-pytorch's own (its legacy.py)"
# Opcodes that give an object a place in the memo.
PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
PLAIN = (str, bytes, int, float, bool, type(None))


def read_pickle(path: Path) -> Any:
    """The content of a pickle file: nested dicts and lists of arrays and plain values, or an array.

    A list of arrays, or of lists of them, comes as a dict that counts from "0".

    Raises:
      InputError: a global that arrays do not need (named in the message), a truncated file, or
        other content.
    """
    with path.open("rb") as file:
        return _load(file, path)


def read_npy(path: Path) -> Any:
    """The content of a `.npy` file: its array, or the object that a pickled 0-d array holds.

    Raises:
      InputError: as `read_pickle`, or a damaged header.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                header = np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            if not dtype.hasobject:
                # NumPy would allocate all that a damaged header names.
                named, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
                if not 0 <= named <= there:
                    raise ValueError(
                        f"its header names {named:,} bytes of numbers, {there:,} follow"
                    )
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
        # The header is a Python literal: a damaged one can raise nearly anything.
        except Exception as error:
            raise file_error(error, f"{path}: not a readable .npy file") from error
        if shape != ():
            raise InputError(f"{path}: objects of shape {list(shape)}, expected a single one, []")
        return _load(file, path)


def _load(file: BinaryIO, path: Path) -> Any:
    start = file.tell()
    try:
        # A map gives no more than there is, where a file is allocated first.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            mapped.seek(start)
            check_opcodes(mapped)
        file.seek(start)
        content = _Building(path).build(_stand_in_unpickler(path)(file).load(), "")
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path}: its entries contain each other, expected a tree") from error
    # A damaged pickle can raise nearly anything from inside the C reader.
    except Exception as error:
        raise file_error(error, f"{path}: not a readable pickle of arrays") from error
    if isinstance(content, list | tuple) and content and all(map(_holds_arrays, content)):
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, dict | np.ndarray):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, expected a dict of arrays or an array"
        )
    return content


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_holds_arrays, value))
    return isinstance(value, np.ndarray)


def check_opcodes(content: bytes | mmap.mmap) -> None:
    """Raises ValueError where a pickle would take far more memory than it has bytes.

    The C reader allocates a length or a place in its memo before it looks at what follows.
    """
    for opcode, argument, at in pickletools.genops(content):  # type: ignore[arg-type]
        if opcode.name in PUTS and argument > at:
            raise ValueError(f"object {argument:,} is named at byte {at:,}")


def _latin1(text: str, encoding: str) -> bytes:
    """Pickles of protocol 2 keep bytes as text and name this function, `_codecs.encode`."""
    if encoding != "latin1":
        raise ValueError(f"bytes encoded as {encoding!r}, expected latin1")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    **STAND_INS,
    **NETWORK_STAND_INS,
}


def _stand_in_unpickler(path: Path) -> type[pickle.Unpickler]:
    """An unpickler class with its own stand-ins, so that one file cannot affect the next."""
    allowed = {
        name: type(item.__name__, (item,), {}) if isinstance(item, type) else item
        for name, item in ALLOWED.items()
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                if what := network_object(path, f"{module}.{name}"):
                    raise InputError(f"{path}: {what}")
                advice = TENSORFLOW if module.startswith("dnnlib.tflib") else READ
                raise InputError(f"{path}: refused, the pickle names {module}.{name}; {advice}")
            return allowed[module, name]

    return Unpickler


class _Building:
    """From what was unpickled to arrays and plain values, counting them."""

    def __init__(self, path: Path):
        self.path = path
        self.values = 0

    def build(self, value: Any, key: str) -> Any:
        self.values += 1
        # One entry under many keys costs the file nothing.
        if self.values > MOST_VALUES:
            raise InputError(
                f"{self.path}: has over {MOST_VALUES:,} entries, expected a checkpoint"
            )
        if isinstance(value, dict):
            prefix = f"{key}/" if key else ""
            return {k: self.build(v, f"{prefix}{k}") for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.build(v, f"{key}/{i}") for i, v in enumerate(value))
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, Persistent):
            return self.build(value.content(key), key)
        # NumPy wraps the one object of a pickled .npy in an array without axes.
        if isinstance(value, Array) and key == "":
            shape, dtype, _, raw = value.parts(key)
            if dtype.hasobject and shape == ():
                return self.build(raw[0], key)
        if not isinstance(value, Stub):
            kind = type(value).__name__
            raise InputError(f"{self.path}: {key or 'content'} is {kind}, expected an array")
        return value.build(self.path, key)
