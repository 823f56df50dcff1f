"""One file to convert, read without running anything in it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.checksum import file_sha256
from interestyle_jax.errors import InputError

from . import foreign_file, safetensors_file, torch_file, torchscript_file
from .progress import bytes_bar
from .restricted_pickle import read_npy, read_pickle

# Key of the array of a file that holds one array and nothing around it.
BARE = "(array)"
# What DataParallel and torch.compile put before every key of a state dict.
PARALLEL = "module."
WRAPPERS = (PARALLEL, "_orig_mod.")
NUMPY_MAGIC = b"\x93NUMPY"


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file's content as it lies there.

    Attributes:
      path: the file.
      sha256: its digest.
      content: nested dicts; arrays are NumPy's, keys the file's own as text, without the
        `WRAPPERS` of a whole section or of one of its networks. Other values are as they were:
        numbers, text, None, lists, `torch_file.Device` for a torch.device; a Namespace is a dict.
        A bare array lies under `BARE`.
      notes: what was changed to get there, a sentence each.
    """

    path: Path
    sha256: str
    content: dict[str, Any]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str | Path, content: Any, *, sha256: str = "") -> "SourceFile":
        """The source file with this content: nested mappings, or one array."""
        notes: list[str] = []
        tree = {BARE: content} if isinstance(content, np.ndarray) else content
        return cls(Path(path), sha256, _unwrapped(tree, "", notes), tuple(notes))

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array under its keys joined by "/"; entries of lists count from 0."""
        return dict(_flatten(self.content))


def keys(sources: Sequence[SourceFile]) -> frozenset[str]:
    """The keys of every array of all files, joined by "/"."""
    return frozenset(key for source in sources for key in source.arrays())


def merge(sources: Sequence[SourceFile]) -> dict[str, np.ndarray]:
    """The arrays of files that make up one network.

    Raises:
      InputError: two of them have the same key.
    """
    arrays: dict[str, np.ndarray] = {}
    for source in sources:
        own = source.arrays()
        twice = sorted(own.keys() & arrays.keys())
        if twice:
            names = ", ".join(str(s.path) for s in sources)
            raise InputError(
                f"{names}: {len(twice)} keys are in two of them, such as {twice[0]}, expected "
                "files that complete each other"
            )
        arrays |= own
    return arrays


def read_source(path: str | Path) -> SourceFile:
    """Reads a PyTorch file (`torch.load(weights_only=True)`, or the tensors of a TorchScript
    archive), safetensors, a pickle, or a `.npy`.

    Raises:
      InputError: missing, empty, truncated or foreign file (with what it is), a forbidden global,
        an archive that inflates to far more than the file's size, or PyTorch or safetensors is
        needed and not installed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(
            f"{path}: is a directory, expected a checkpoint file (weight directories go back with "
            "--to=pytorch)"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty, expected a checkpoint file")
    content = _reader(path)(path)
    with bytes_bar(path.stat().st_size, f"hash {path.name}") as bar:
        sha256 = file_sha256(path, advance=bar.update)
    return SourceFile.of(path, content, sha256=sha256)


def _reader(path: Path) -> Callable[[Path], Any]:
    """By the file's first bytes; its name decides only where those say nothing."""
    with path.open("rb") as file:
        start = file.read(foreign_file.LENGTH)
    foreign_file.check(path, start)
    if start.startswith(NUMPY_MAGIC):
        return read_npy
    is_safetensors = safetensors_file.starts_one(start, path.stat().st_size)
    if is_safetensors or path.suffix == ".safetensors":
        return safetensors_file.read
    if torchscript_file.is_torchscript(path):
        return torchscript_file.read
    is_torch = torch_file.is_torch(path, start)
    return torch_file.read if is_torch or path.suffix in (".pt", ".pth") else read_pickle


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for key, value in items:
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping | list | tuple):
            yield from _flatten(value, name)
        elif isinstance(value, np.ndarray):
            yield name, value


def _unwrapped(tree: Mapping[str, Any], name: str, notes: list[str]) -> dict[str, Any]:
    """The tree without the wrappers' words; a wrapped network may have been wrapped again."""
    names = {str(key): str(key) for key in tree}
    removed = _unwrap(names, "")
    for network in sorted({key.partition(".")[0] for key in names.values() if "." in key}):
        removed |= _unwrap(names, f"{network}.")
    for word in sorted(removed):
        notes.append(f'keys of {name or "the file"} began with "{word}", which was taken off')
    return {
        names[str(k)]: _unwrapped(v, f"{name}/{names[str(k)]}" if name else names[str(k)], notes)
        if isinstance(v, Mapping)
        else v
        for k, v in tree.items()
    }


def _unwrap(names: dict[str, str], network: str) -> set[str]:
    """Takes wrappers off the names of one network, which all begin with `network`; the words."""
    removed: set[str] = set()
    own = [key for key, name in names.items() if name.startswith(network)]
    while own:
        words = [w for w in WRAPPERS if all(names[k].startswith(network + w) for k in own)]
        if not words:
            break
        for key in own:
            names[key] = network + names[key].removeprefix(network + words[0])
        removed.add(words[0])
    return removed
