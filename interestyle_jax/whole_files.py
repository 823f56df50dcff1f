"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from interestyle_jax.errors import file_error


@contextlib.contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A file to write, that takes the place of `path` when the block ends well.

    Args:
      path: where it goes; its folder exists.
      sync: wait until the content is on the disk.

    Raises:
      InputError: the file may not be written.
      MachineError: the disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise file_error(error, f"{path}: cannot be written") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Writes a file as `whole_file` does."""
    with whole_file(path, sync=sync) as file:
        file.write(content)


def sync(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can say so."""
    with contextlib.suppress(OSError):
        sync(folder)
