"""Latents on their way to disk: rows appended while a job runs, then one file, or one a shard.

A job appends rows of float32 to a hidden file of its own; where they lie is noted in its progress.
The end is `latents.npz` (`names`, `w_plus` [n, N, L, D], and `generator`, the fingerprint of the
generator they belong to), or, above LARGEST_JOINED bytes, `latents-00000-of-00007.npz` and so on,
of the same content. Files of earlier versions have no `generator`. Nothing is in memory but a row.
"""

import contextlib
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.whole_files import whole_file

JOINED = "latents.npz"
LARGEST_JOINED = 4 * 2**30
SHARD_BYTES = 2**28
_SHARD = re.compile(r"latents-(\d{5,})-of-(\d{5,})\.npz")
# A shard that a process was writing when it was killed.
_UNFINISHED = re.compile(r"\.latents-\d{5,}-of-\d{5,}\.npz\.\d+")
_ROWS = re.compile(r"\.latents-[0-9a-f]{16}\.rows")


class LatentWriter:
    """Appends rows to a new hidden file of a folder."""

    def __init__(self, folder: Path):
        """Nothing is written before the first row."""
        self.name = f".latents-{secrets.token_hex(8)}.rows"
        self._path, self._count = folder / self.name, 0
        self._file: BinaryIO | None = None

    def add(self, latents: Float[np.ndarray, "N L D"]) -> int:
        """Appends one image's latents [N, L, D]; returns their row."""
        with self._told():
            if self._file is None:
                self._file = self._path.open("xb")
            self._file.write(np.ascontiguousarray(latents, "<f4").data)
        self._count += 1
        return self._count - 1

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        if self._file is not None:
            with self._told():
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with self._told():
                self._file.close()

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except OSError as error:
            raise file_error(error, f"{self._path}: cannot be written") from error


def rows_of(folder: Path, name: str, shape: Sequence[int]) -> np.ndarray | None:
    """The rows [n, *shape] of a writer's file, mapped; None where it is gone. Name as in progress.

    Raises InputError for a name that no writer gave.
    """
    if not _ROWS.fullmatch(name):
        raise InputError(f"{folder}: progress names {name!r}, which holds no latents")
    try:
        count = (folder / name).stat().st_size // (4 * int(np.prod(shape)))
    except OSError:
        return None
    if count == 0:
        return None
    return np.memmap(folder / name, "<f4", "r", shape=(count, *shape))


class LatentFile:
    """`names` and `w_plus` of an output folder or a file, read when asked for.

    Attributes:
      names: the images' names, in order.
      paths: the files they lie in.
      generator: fingerprint of the generator they belong to (`weights.generator_fingerprint`), or
        None where the files do not say.
    """

    def __init__(self, path: str | Path):
        """Opens `latents.npz`, one shard, or whatever of them lies in a folder.

        Also what others write, without names ("0", "1", ...): an array [n, L, D] or [L, D] in .npy
        or in PyTorch's format (e4e's latents.pt), or stylegan2-ada's projected_w.npz.

        Raises:
          InputError: no latents there, damaged ones, or a shard that is missing.
        """
        path = Path(path)
        self.paths = _latent_files(path) if path.is_dir() else [path]
        if not self.paths:
            raise InputError(f"{path}: holds no {JOINED}")
        parts = [_read_others(file) or _map_npz(file) for file in self.paths]
        self._parts = [w_plus for _, w_plus, _ in parts]
        generators = {generator for _, _, generator in parts}
        if len(generators) > 1:
            raise InputError(f"{path}: its latents belong to several generators")
        self.generator: str | None = generators.pop()
        if len({part.shape[1:] for part in self._parts}) > 1:
            raise InputError(f"{path}: its latents have several shapes")
        self.names: list[str] = [name for names, _, _ in parts for name in names.tolist()]
        self._firsts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._index = {name: i for i, name in enumerate(self.names)}

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, N, L, D)."""
        return (len(self.names), *self._parts[0].shape[1:])

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> np.ndarray:
        """w_plus [N, L, D] of an image, float32."""
        i = self._index[name]
        part = int(np.searchsorted(self._firsts, i, "right")) - 1
        return np.array(self._parts[part][i - self._firsts[part]], np.float32)


def write_latents(
    folder: Path,
    names: Sequence[str],
    read: Callable[[str], np.ndarray],
    shape: Sequence[int],
    *,
    generator: str | None = None,
) -> LatentFile:
    """Writes the latents of `names` in order, then deletes what they were gathered from.

    Args:
      folder: where to.
      names: the images.
      read: name -> float32 of `shape`; may read the files that are replaced.
      shape: (N, L, D).
      generator: fingerprint of the generator they belong to, or None.

    Returns:
      The new file or files.

    Raises:
      InputError: the files may not be written.
      MachineError: the disk is full or fails.
    """
    old = _latent_files(folder, whole=False)
    row = 4 * int(np.prod(shape))
    if row * len(names) <= LARGEST_JOINED:
        parts = {JOINED: names}
    else:
        size = max(1, SHARD_BYTES // row)
        count = -(-len(names) // size)
        parts = {
            f"latents-{k:05d}-of-{count:05d}.npz": names[k * size : (k + 1) * size]
            for k in range(count)
        }
    # Later parts of the old files are still read while the first ones are replaced.
    with contextlib.ExitStack() as files:
        for name, own in parts.items():
            file = files.enter_context(whole_file(folder / name))
            _write_npz(file, own, (read(image) for image in own), shape, generator)
    for path in old:
        if path.name not in parts:
            path.unlink(missing_ok=True)
    for path in folder.glob(".latents-*"):
        if _ROWS.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return LatentFile(folder)


def _write_npz(
    file,
    names: Sequence[str],
    rows: Iterable[np.ndarray],
    shape: Sequence[int],
    generator: str | None,
) -> None:
    """As `np.savez(file, names=..., generator=..., w_plus=...)`, a row at a time."""
    texts = {"names.npy": np.array(names, np.str_)}
    if generator is not None:
        texts["generator.npy"] = np.array(generator)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, text in texts.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, text, allow_pickle=False)
        with archive.open(zipfile.ZipInfo("w_plus.npy"), "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), *shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for row in rows:
                member.write(np.ascontiguousarray(row, "<f4").data)


def _read_others(path: Path) -> tuple[np.ndarray, np.ndarray, None] | None:
    """As `_map_npz`, of the files of others; None of ours."""
    if path.suffix == ".npz":
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                array = file["w"] if file.files == ["w"] else None
        except Exception as error:
            raise file_error(error, f"{path}: latents cannot be read") from error
        if array is None:
            return None
    else:
        # Nothing in them is run; PyTorch is imported for its own files alone.
        from interestyle_jax.convert_weights.source_file import BARE, read_source

        array = read_source(path).content.get(BARE)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim not in (2, 3):
        raise InputError(f"{path}: expected one array of floats, [n, L, D] or [L, D]")
    w_plus = array.reshape(-1, 1, *array.shape[-2:])
    return np.array([str(i) for i in range(len(w_plus))]), w_plus, None


def _map_npz(path: Path) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Names [n], w_plus [n, N, L, D], mapped where it is stored, and generator of an .npz file."""
    try:
        # NumPy leaves a damaged file open that it has opened itself.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = file["names"]
            generator = file["generator"] if "generator" in file.files else None
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("w_plus.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            with np.load(path, allow_pickle=False) as file:
                w_plus = file["w_plus"]
        else:
            w_plus = _map_member(path, info)
    except KeyError as error:
        raise InputError(f"{path}: holds no {error}, expected names and w_plus") from error
    except Exception as error:
        raise file_error(error, f"{path}: latents cannot be read") from error
    if not (isinstance(names, np.ndarray) and isinstance(w_plus, np.ndarray)):
        raise InputError(f"{path}: names or w_plus is no array")
    if names.ndim != 1 or w_plus.ndim != 4 or len(names) != len(w_plus) or names.dtype.kind != "U":
        raise InputError(
            f"{path}: names {list(names.shape)} and w_plus {list(w_plus.shape)}, expected [n] and "
            "[n, N, L, D]"
        )
    if generator is not None and (generator.shape != () or generator.dtype.kind != "U"):
        raise InputError(f"{path}: generator is {generator.dtype}, expected a text")
    return names, w_plus, None if generator is None else str(generator)


def _map_member(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    with path.open("rb") as file:
        # Lengths of the name and of the extra field end the local header of 30 bytes.
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(info.header_offset + 30 + int(lengths.sum()))
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if fortran or dtype.kind != "f":
            raise ValueError(f"w_plus is {dtype}, expected floats in C order")
        if file.tell() + int(np.prod(shape)) * dtype.itemsize > path.stat().st_size:
            raise ValueError("w_plus is cut off")
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)


def _latent_files(folder: Path, *, whole: bool = True) -> list[Path]:
    """The files of a folder that hold its latents; with `whole`, none where a shard is missing."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("latents-*.npz")):
        match = _SHARD.fullmatch(path.name)
        if match:
            found.setdefault(int(match[2]), []).append(path)
    joined = [folder / JOINED] if (folder / JOINED).is_file() else []
    if not whole:
        return joined + [path for paths in found.values() for path in paths]
    if joined:
        return joined
    return next((paths for count, paths in found.items() if len(paths) == count), [])
