"""PyTorch files through `torch.load(weights_only=True)`, as NumPy arrays and plain values."""

import argparse
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interestyle_jax.errors import InputError, file_error

# The first pickle of a file written before the zip format: a magic number.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# torch.save stores without compression; what inflates to more than this is no checkpoint.
INFLATION = 4
# What a small file may need beyond that.
SLACK = 1 << 20
# Entries of a file; an optimizer's state has tens of thousands.
MOST_VALUES = 1_000_000


class Device(str):
    """The text of a torch.device ("cuda:0"), told from mere text by its type."""


def import_torch(what: str) -> Any:
    """The module torch; `what` begins the message of the InputError where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{what} needs PyTorch, install the extra: pip install 'interestyle-jax[convert]'"
        ) from error
    return torch


def read(path: Path) -> Any:
    """The file's content: nested dicts and lists, or one array.

    Arrays are NumPy's, of the file's own types (bfloat16 from ml_dtypes), and lie in the file
    where its format allows. A torch.device becomes `Device`, a Namespace a dict.

    Raises:
      InputError: truncated or foreign file, a forbidden global (named), a tensor that NumPy cannot
        hold, tensors or archive entries far larger than the file, or PyTorch is not installed.
    """
    torch = import_torch(f"{path}: reading it")
    mappable = zipfile.is_zipfile(path) and _check_archive(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except pickle.UnpicklingError as error:
        # The message's middle names the offending global; its rest is advice to switch safety off.
        text = " ".join(str(error).split())
        start = text.find("Unsupported global")
        detail = text[start : start + 200].split(" was not")[0] if start >= 0 else text[:200]
        raise InputError(f"{path}: refused by torch.load(weights_only=True): {detail}") from error
    except Exception as error:
        raise file_error(error, f"{path}: not a readable PyTorch file") from error
    if not isinstance(content, Mapping | argparse.Namespace | torch.Tensor):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, expected a dict of tensors or a tensor"
        )
    try:
        return _Reading(path, torch).plain(content, "")
    except RecursionError as error:
        raise InputError(f"{path}: its entries contain each other, expected a tree") from error


def _check_archive(path: Path) -> bool:
    """Whether the entries lie in the file as they are, and so can be mapped.

    Raises:
      InputError: the archive would inflate without measure, or an entry is damaged, which PyTorch
        does not check.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            declared = sum(entry.file_size for entry in entries)
            inflates = declared > INFLATION * size + SLACK
            damaged = None if inflates else archive.testzip()
    # Damaged headers and compressed data raise errors of many kinds.
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError) as error:
        raise file_error(error, f"{path}: not a readable PyTorch file") from error
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
        return self._array(value, key) if isinstance(value, self.torch.Tensor) else value

    def _array(self, tensor: Any, key: str) -> np.ndarray:
        name = key or "the tensor"
        self.bytes += tensor.numel() * tensor.element_size()
        if self.bytes > self.limit:
            raise InputError(
                f"{self.path}: up to {name} the tensors need {self.bytes:,} bytes, expected no "
                f"more than {INFLATION} times the file's size"
            )
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
