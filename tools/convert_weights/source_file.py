"""One file to convert, read without running anything in it."""

import dataclasses
import hashlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from tools.convert_weights.restricted_pickle import read_pickle


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file's content as it lies there.

    Attributes:
      path: the file.
      sha256: its digest.
      content: nested dicts; arrays are NumPy's, keys the file's own.
    """

    path: Path
    sha256: str
    content: dict[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array under its keys joined by "/"."""
        return dict(_flatten(self.content))


def read_source(path: str | Path) -> SourceFile:
    """Reads a PyTorch file (`torch.load(weights_only=True)`) or a pickle of NumPy arrays.

    Raises:
      InputError: missing, truncated or foreign file, a forbidden global, or PyTorch is needed and
        not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = _read_torch(path) if _is_torch(path) else read_pickle(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(path, digest, content)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flatten(value, name)
        elif isinstance(value, np.ndarray):
            yield name, value


def _is_torch(path: Path) -> bool:
    """Zip archives are PyTorch's format since 1.6; the older one goes by the file's name."""
    return zipfile.is_zipfile(path) or path.suffix in (".pt", ".pth")


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs PyTorch, install the extra: pip install "
            "'interestyle-jax[convert]'"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The message's middle names the offending global; its rest is advice to switch safety off.
        text = " ".join(str(error).split())
        start = text.find("Unsupported global")
        detail = text[start : start + 200].split(" was not")[0] if start >= 0 else text[:200]
        raise InputError(f"{path}: refused by torch.load(weights_only=True): {detail}") from error
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable PyTorch file: {detail}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    return _to_numpy(content, torch)


def _to_numpy(value: Any, torch: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _to_numpy(v, torch) for k, v in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.detach()
        # NumPy has no bfloat16; float32 holds it exactly.
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value
