"""Stand-ins for what stylegan2-ada-pytorch's network pickles name: tensors, and objects as data.

A persistent object there is a call with one dict: the class's name, its source code, and the
object's state. The source code is never looked at. Facts from the public repository's
`torch_utils/persistence.py` and PyTorch's `torch/_utils.py`.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from .numpy_pickle import Stub
from .torch_file import import_torch, load

# Where a torch module keeps what it holds.
HOLDERS = ("_parameters", "_buffers", "_modules")
PLAIN = (str, int, float, bool, type(None))


class Container(dict):
    """A dict of another name (OrderedDict, EasyDict); attributes set on it are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class Items(list):
    """A set, whose items no network reads."""


class Storage(Stub):
    """torch.storage._load_from_bytes: a file of torch.save inside the pickle."""

    numbers: Any = None

    def tensor(self, path: Path) -> Any:
        """All its numbers as a tensor with one axis, read once for the tensors that share them."""
        if self.numbers is None:
            torch = import_torch(f"{path}: reading it")
            (raw,) = self.args
            storage = load(torch, io.BytesIO(raw))
            self.numbers = torch.empty(0, dtype=storage.dtype).set_(storage)
        return self.numbers


class Tensor(Stub):
    """torch._utils._rebuild_tensor_v2: a storage, where in it, shape and strides."""

    def build(self, path: Path, key: str) -> np.ndarray:
        """See `Stub.build`."""
        storage, offset, shape, strides = self.args[:4]
        if not isinstance(storage, Storage):
            raise ValueError(f"{key} is a tensor without a storage")
        numbers = storage.tensor(path)
        if math.prod(shape) > numbers.numel():
            raise ValueError(
                f"{key} has shape {list(shape)}, its storage {numbers.numel()} numbers"
            )
        # PyTorch refuses what reaches outside of the storage.
        tensor = numbers.as_strided(tuple(shape), tuple(strides), offset)
        return np.array(tensor.numpy())


class Parameter(Stub):
    """torch._utils._rebuild_parameter: a tensor and whether it learns."""

    def build(self, path: Path, key: str) -> np.ndarray:
        """See `Stub.build`."""
        if not self.args or not isinstance(self.args[0], Tensor):
            raise ValueError(f"{key} is a parameter without a tensor")
        return self.args[0].build(path, key)


class Persistent(Stub):
    """torch_utils.persistence._reconstruct_persistent_obj: a class by name, and its state."""

    def content(self, key: str) -> dict[str, Any]:
        """{"class": name}, the module's numbers and text, parameters, buffers and modules."""
        meta = self.args[0] if self.args else None
        state = meta.get("state") if isinstance(meta, dict) else None
        if not isinstance(state, dict):
            raise ValueError(f"{key or 'content'} is a persistent object without a state")
        content: dict[str, Any] = {"class": meta.get("class_name")}
        content |= {
            k: v for k, v in state.items() if isinstance(v, PLAIN) and not str(k).startswith("_")
        }
        for holder in HOLDERS:
            held = state.get(holder) or {}
            content |= {k: v for k, v in held.items() if v is not None}
        return content


NETWORK_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Container,
    ("dnnlib.util", "EasyDict"): Container,
    ("builtins", "set"): Items,
    ("torch.storage", "_load_from_bytes"): Storage,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): Parameter,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Persistent,
}
