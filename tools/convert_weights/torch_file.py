"""PyTorch files through `torch.load(weights_only=True)`, as NumPy arrays and plain values."""

import argparse
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interestyle_jax.errors import InputError, file_error, reason
from interestyle_jax.one_line import one_line

from .numpy_pickle import STAND_INS, Number, Stub

# The first pickle of a file written before the zip format: a magic number.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# torch.save stores without compression; what inflates to more than this is no checkpoint.
INFLATION = 4
# What a small file may need beyond that.
SLACK = 1 << 20
# Entries of a file; an optimizer's state has tens of thousands.
MOST_VALUES = 1_000_000


# NumPy's arrays and numbers, which would else need NumPy's own functions.
NUMPY = [(stand_in, ".".join(name)) for name, stand_in in STAND_INS.items()]
ZIP_MAGIC = b"PK\x03\x04"
# PyTorch's layers, which a pickle names that holds a network.
LAYERS = b"torch.nn.modules."
# A network's pickle before the tensors of a file that is no archive.
PICKLE_BYTES = 1 << 24
UNREADABLE = "not a readable PyTorch file"
CUT_OFF = "it is cut off, copy or download it again"


class Device(str):
    """The text of a torch.device ("cuda:0"), distinguished from plain text by its type."""


def import_torch(what: str) -> Any:
    """The module torch; `what` begins the message of the InputError where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{what} needs PyTorch, install the extra: pip install 'interestyle-jax[convert]'"
        ) from error
    return torch


def load(torch: Any, source: Any, **options: Any) -> Any:
    """`torch.load` of a file or stream on the CPU, which runs nothing that is in it.

    Its warnings about foreign files are left out: what it cannot read it raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(source, map_location="cpu", weights_only=True, **options)


def read(path: Path) -> Any:
    """The file's content: nested dicts and lists, or one array.

    Arrays are NumPy's, of the file's own types (bfloat16 from ml_dtypes), and lie in the file
    where its format allows. A torch.device becomes `Device`, a Namespace a dict.

    Raises:
      InputError: truncated or foreign file, a forbidden global (named), a tensor that NumPy cannot
        hold, tensors or archive entries far larger than the file, or PyTorch is not installed.
    """
    torch = import_torch(f"{path}: reading it")
    mappable = False
    if is_archive(path):
        mappable = check_archive(path)
    elif _first_bytes(path, len(ZIP_MAGIC)) == ZIP_MAGIC:
        # An archive's table of contents is its end.
        raise InputError(f"{path}: {UNREADABLE}: {CUT_OFF}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *NUMPY]):
            content = load(torch, path, mmap=mappable)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_refusal(path, error)}") from error
    # What a file that is cut off gives.
    except (EOFError, struct.error) as error:
        raise InputError(f"{path}: {UNREADABLE}: {CUT_OFF}") from error
    except Exception as error:
        detail = one_line(str(error))
        # PyTorch's advice is to switch its safety off.
        if "weights_only" in detail or "unexpected EOF" in detail:
            what = CUT_OFF if "unexpected EOF" in detail else "its pickle is damaged or foreign"
            raise InputError(f"{path}: {UNREADABLE}: {what}") from error
        raise file_error(error, f"{path}: {UNREADABLE}") from error
    try:
        plain = _Reading(path, torch).plain(content, "")
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path}: its entries contain each other, expected a tree") from error
    # What NumPy's stand-ins hold is the file's.
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(f"{path}: {UNREADABLE}: {reason(error)}") from error
    if not isinstance(plain, dict | np.ndarray):
        raise InputError(
            f"{path}: holds a {type(plain).__name__}, expected a dict of tensors or a tensor"
        )
    return plain


def is_torch(path: Path, start: bytes) -> bool:
    """Whether a file that begins so is one of torch.save, cut off or not."""
    return start.startswith((ZIP_MAGIC, LEGACY_MAGIC)) or is_archive(path)


def is_archive(path: Path) -> bool:
    """Whether the file is a zip archive; a damaged one is."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """What the restricted unpickler met, without PyTorch's advice to do without it."""
    text = one_line(str(error))
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found is None:
        detail = text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the doc")[0]
        what = "its pickle is damaged or foreign" if "weights_only" in detail else detail[:200]
        return f"{UNREADABLE}: {what}"
    return network_object(path, found[1]) or (
        f"refused, it names {found[1]}; only tensors, numbers and options are read"
    )


def network_object(path: Path, name: str) -> str | None:
    """What to do with a file whose pickle names one of PyTorch's layers, or None for another.

    Args:
      path: the file.
      name: the class or function that was refused.
    """
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
            named = any(LAYERS in archive.read(n) for n in pickles)
    else:
        # The tensors follow the pickle.
        named = LAYERS in _first_bytes(path, PICKLE_BYTES)
    if not named:
        return None
    return (
        f"holds a whole network as an object (it names {name}), which only its own code can read; "
        "expected its tensors: load it with that code and torch.save its state_dict()"
    )


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def check_archive(path: Path) -> bool:
    """Whether the entries lie in the file as they are, and so can be mapped.

    Raises:
      InputError: the archive would inflate without measure, or an entry is damaged, which PyTorch
        does not check.
    """
    size, names = path.stat().st_size, []
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            declared = sum(entry.file_size for entry in entries)
            inflates = declared > INFLATION * size + SLACK
            damaged = None if inflates else archive.testzip()
    # Damaged headers and compressed data raise errors of many kinds.
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError) as error:
        raise file_error(error, f"{path}: not a readable PyTorch file") from error
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise InputError(
            f"{path}: is a zip archive of other things than a checkpoint ({', '.join(names[:3])}), "
            "expected one of torch.save; unpack it and give what is inside"
        )
    if inflates:
        raise InputError(
            f"{path}: the archive of {size:,} bytes would inflate to {declared:,}, expected "
            "PyTorch's uncompressed archive"
        )
    if damaged is not None:
        raise InputError(f"{path}: {damaged} does not match its checksum: damaged or changed")
    # PyTorch would map compressed bytes as if they were numbers.
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


class _Reading:
    """From torch's objects to NumPy's.

    Counts bytes and values: strides of 0, and one entry under many keys, cost the file nothing.
    """

    def __init__(self, path: Path, torch: Any):
        self.path = path
        self.torch = torch
        self.bytes = 0
        self.values = 0
        self.limit = INFLATION * path.stat().st_size + SLACK

    def plain(self, value: Any, key: str) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            raise InputError(
                f"{self.path}: has over {MOST_VALUES:,} entries, expected a checkpoint"
            )
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            return {
                str(k): self.plain(v, f"{key}/{k}" if key else str(k)) for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return type(value)(self.plain(v, f"{key}/{i}") for i, v in enumerate(value))
        if isinstance(value, self.torch.device):
            return Device(str(value))
        if isinstance(value, Number):
            return value.build(self.path, key).item()
        if isinstance(value, type):
            raise ValueError(f"{key or 'content'} is a bare name, expected an array")
        if isinstance(value, Stub):
            array = value.build(self.path, key)
            self._count(array.nbytes, key)
            return array
        return self._array(value, key) if isinstance(value, self.torch.Tensor) else value

    def _count(self, size: int, key: str) -> None:
        self.bytes += size
        if self.bytes > self.limit:
            raise InputError(
                f"{self.path}: up to {key or 'the tensor'} the tensors need {self.bytes:,} bytes, "
                f"expected no more than {INFLATION} times the file's size"
            )

    def _array(self, tensor: Any, key: str) -> np.ndarray:
        name = key or "the tensor"
        self._count(tensor.numel() * tensor.element_size(), key)
        try:
            tensor = tensor.detach()
            if tensor.dtype == self.torch.bfloat16:
                return tensor.view(self.torch.int16).numpy().view(ml_dtypes.bfloat16)
            return tensor.numpy()
        except (TypeError, RuntimeError) as error:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{self.path}: {name} is a tensor of type {kind}, layout {tensor.layout}, expected "
                "dense numbers"
            ) from error
