"""Tensors of a TorchScript archive, without PyTorch and without running its program.

Such an archive is a zip: "data.pkl" names the module's classes and attributes, "data/N" are raw
little-endian numbers, "code/" is the program, which is never looked at. Facts from PyTorch's
`torch/jit` and `torch/_utils.py`.
"""

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interestyle_jax.errors import InputError, file_error

from .numpy_pickle import Stub
from .restricted_pickle import check_opcodes
from .torch_file import INFLATION, MOST_VALUES, SLACK, check_archive

# What the classes of a program are called in its archive.
PROGRAM = "__torch__"
STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Attributes that are lists of numbers.
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class Module(Stub):
    """An object of the program: only its attributes are read."""


class List(Stub):
    """A list of an attribute, which no state dict has."""


class Tensor(Stub):
    """torch._utils._rebuild_tensor_v2: a storage, where in it, shape and strides."""


class Dictionary(dict):
    """collections.OrderedDict; what is set on it is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def is_torchscript(path: Path) -> bool:
    """Whether a zip archive holds a TorchScript program; damaged ones do not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def read(path: Path) -> dict[str, np.ndarray]:
    """The module's parameters and buffers by their keys in its state dict.

    Tensors that are plain attributes are among them; lists and other values are not.

    Raises:
      InputError: a damaged archive, a global other than the program's and tensors (named), a tensor
        outside of its storage, or tensors far larger than the file.
    """
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
            root = pickled.removesuffix("data.pkl")
            text = archive.read(pickled)
            check_opcodes(text)
            found = _Unpickler(io.BytesIO(text), path).load()
            return _Reading(path, archive, f"{root}data/").tensors(found)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path}: its entries contain each other, expected a tree") from error
    # A damaged pickle can raise nearly anything from inside the C reader.
    except Exception as error:
        raise file_error(error, f"{path}: not a readable TorchScript archive") from error


class _Unpickler(pickle.Unpickler):
    """Names of the program become inert stand-ins, made anew for each."""

    def __init__(self, file: io.BytesIO, path: Path):
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if module == PROGRAM or module.startswith(f"{PROGRAM}."):
            return type("Module", (Module,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return type("Tensor", (Tensor,), {})
        if (module, name) == ("collections", "OrderedDict"):
            return Dictionary
        if module == "torch" and name in STORAGES:
            return name
        if module == "torch.jit._pickle" and name in LISTS:
            return type("List", (List,), {})
        raise InputError(
            f"{self.path}: refused, it names {module}.{name}; only tensors and the program's own "
            "modules are read"
        )

    def persistent_load(self, key: Any) -> tuple[str, str, int]:
        kind, storage, name, _, numbers = key
        if kind != "storage" or storage not in STORAGES:
            raise ValueError(f"a storage of {storage!r}")
        return storage, str(name), int(numbers)


class _Reading:
    """From stand-ins to arrays, counting bytes and values."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str):
        self.path = path
        self.archive = archive
        self.folder = folder
        self.storages: dict[tuple[str, str], np.ndarray] = {}
        self.found: dict[str, np.ndarray] = {}
        self.bytes = 0
        self.values = 0
        self.limit = INFLATION * path.stat().st_size + SLACK

    def tensors(self, content: Any) -> dict[str, np.ndarray]:
        if not isinstance(content, Module):
            raise InputError(f"{self.path}: holds a {type(content).__name__}, expected a module")
        self._walk(content, "")
        return self.found

    def _walk(self, value: Any, key: str) -> None:
        self.values += 1
        if self.values > MOST_VALUES:
            raise InputError(
                f"{self.path}: has over {MOST_VALUES:,} entries, expected a checkpoint"
            )
        if isinstance(value, Tensor):
            self.found[key] = self._tensor(value, key)
        elif isinstance(value, Module) and isinstance(value.state, dict):
            for name, held in value.state.items():
                self._walk(held, f"{key}.{name}" if key else str(name))

    def _tensor(self, value: Tensor, key: str) -> np.ndarray:
        storage, offset, shape, strides = value.args[:4]
        numbers = self._storage(storage)
        if len(shape) != len(strides) or min((offset, *shape, *strides), default=0) < 0:
            raise ValueError(f"{key} has shape {list(shape)} and strides {list(strides)}")
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if 0 not in shape and last >= len(numbers):
            raise ValueError(f"{key} has shape {list(shape)}, its storage {len(numbers):,} numbers")
        self.bytes += math.prod(shape) * numbers.itemsize
        if self.bytes > self.limit:
            raise InputError(
                f"{self.path}: up to {key} the tensors need {self.bytes:,} bytes, expected no more "
                f"than {INFLATION} times the file's size"
            )
        steps = tuple(s * numbers.itemsize for s in strides)
        if 0 in shape:
            return np.zeros(shape, numbers.dtype)
        return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)

    def _storage(self, storage: tuple[str, str, int]) -> np.ndarray:
        kind, name, count = storage
        if (kind, name) not in self.storages:
            dtype = np.dtype(STORAGES[kind])
            raw = self.archive.read(self.folder + name)
            if len(raw) < count * dtype.itemsize:
                raise ValueError(f"storage {name} has {len(raw):,} bytes for {count:,} numbers")
            little = dtype.newbyteorder("<") if dtype.kind in "fi" else dtype
            self.storages[kind, name] = np.frombuffer(raw, little, count).astype(dtype, copy=False)
        return self.storages[kind, name]
