"""The way back: a weight directory as the official file, or files, of its family."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from interestyle_jax.checksum import file_sha256
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.output_folder import output_folder
from interestyle_jax.unfinished import unfinished_file
from interestyle_jax.weights import Weights, load_weights, resolve_weights

from .families import by_name
from .progress import bytes_bar
from .source_file import BARE, SourceFile
from .torch_file import Device, import_torch


def to_pytorch(
    directory: str | Path, out: str | Path, *, family: str = "auto", force: bool = False
) -> str:
    """Writes weights in the official layout and returns the report.

    Args:
      directory: a weight directory, or the name of shipped weights.
      out: the `.pt` to write; for a family of several files the folder for them.
      family: the layout, "auto" for the one that the directory's metadata names.
      force: replace an existing file, or files of the same names.

    Raises:
      InputError: `out` exists, the family is unknown or has no way back, the weights lack a part of
        the layout, or PyTorch is not installed. Nothing is written then.
      MachineError: the disk is full or fails; nothing is left there.
    """
    out = Path(out).expanduser().absolute()
    torch = import_torch("writing a PyTorch file")
    weights = load_weights(resolve_weights(directory))
    kind = by_name(weights.metadata["family"] if family == "auto" else family)
    _check_out(out, is_folder=bool(kind.files), force=force)
    try:
        content = kind.restore(weights)
    except KeyError as error:
        raise InputError(
            f"{weights.directory}: no {error.args[0]} in these weights, the layout of family "
            f"{kind.name} needs it"
        ) from error
    contents = content if kind.files else {out.name: content}
    try:
        if kind.files:
            with output_folder(out) as folder:
                for name, value in contents.items():
                    with (folder / name).open("wb") as file:
                        _write(file, name, value, torch)
        else:
            with _replacing(out) as file:
                _write(file, out.name, content, torch)
    # A full disk reaches torch.save as OSError or RuntimeError, by the step it met it in.
    except (OSError, RuntimeError) as error:
        raise file_error(error, f"{out}: could not be written") from error
    return _report(kind.name, weights, out, contents, is_folder=bool(kind.files))


def _check_out(out: Path, *, is_folder: bool, force: bool) -> None:
    if is_folder:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: exists and is no folder, expected one for several files")
        if out.exists() and any(out.iterdir()) and not force:
            raise InputError(f"{out}: already exists and is not empty, pass --force to write there")
        return
    if out.is_dir():
        raise InputError(f"{out}: is a directory, expected the name of the file to write")
    if out.exists() and not force:
        raise InputError(f"{out}: already exists, pass --force to replace it")


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[BinaryIO]:
    """A file beside `out` that takes its place when the block ends well, and is deleted if not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_file(out.parent, name=out.name) as temporary:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)


class _Counted:
    """A file that moves a progress bar."""

    def __init__(self, file: BinaryIO, bar: Any):
        self.file = file
        self.bar = bar
        self.error: OSError | None = None

    def write(self, piece: Any) -> int:
        self.bar.update(memoryview(piece).nbytes)
        try:
            return self.file.write(piece)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _write(file: BinaryIO, name: str, content: Mapping[str, Any], torch: Any) -> None:
    size = sum(array.nbytes for array in _arrays(content).values())
    with bytes_bar(size, f"write {name}") as bar:
        counted = _Counted(file, bar)
        if name.endswith(".npy"):
            np.save(counted, np.array(dict(content), dtype=object), allow_pickle=True)
        else:
            try:
                torch.save(_to_torch(content, torch), counted)
            except RuntimeError as error:
                # PyTorch words what the file raised as a fault of its own.
                raise counted.error or error from error


def _to_torch(value: Any, torch: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {BARE}:
            return _to_torch(value[BARE], torch)
        return {k: _to_torch(v, torch) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_torch(v, torch) for v in value)
    if isinstance(value, Device):
        return torch.device(str(value))
    if isinstance(value, np.ndarray | np.generic):
        with warnings.catch_warnings():
            # Nothing writes to these tensors; torch.save only reads them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.require(value, requirements="C"))
    return value


def _arrays(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return SourceFile(Path(), "", dict(content)).arrays()


def _report(
    family: str, weights: Weights, out: Path, contents: Mapping[str, Any], *, is_folder: bool
) -> str:
    lines = [f"family {family}", f"source {weights.directory}"]
    for name, content in contents.items():
        arrays = _arrays(content).values()
        path = out / name if is_folder else out
        count = sum(array.size for array in arrays)
        sha256 = file_sha256(path)
        lines.append(f"{path}  {len(arrays):,} tensors, {count:,} numbers, sha256 {sha256}")
    stored = weights.metadata["storage_dtype"]
    if stored != "float32":
        lines.append(f"note: the weights are stored as {stored}, written as float32")
    return "\n".join(lines)
