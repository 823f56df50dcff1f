"""The files of a weight directory: an Orbax tree, checked by digests and written in one move."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from interestyle_jax.checksum import file_sha256
from interestyle_jax.errors import InputError
from interestyle_jax.unfinished import unfinished_folder
from interestyle_jax.whole_files import sync


def write_tree(directory: Path, tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Writes nested dicts of NumPy arrays as an Orbax tree and returns its `digests`."""
    with _checkpointer() as (checkpointer, _):
        checkpointer.save(directory, args=ocp.args.PyTreeSave(tree))
    # Orbax reads without it, and it holds the path of the writer's machine.
    (directory / "commit_success.txt").unlink(missing_ok=True)
    return digests(directory)


def read_tree(directory: Path) -> dict[str, Any]:
    """Nested dicts of NumPy arrays, whatever devices and sharding they were written from."""
    with _checkpointer() as (checkpointer, handler):
        # Of the handler: a checkpointer drops the errors that it meets here.
        stored = handler.metadata(directory).tree
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        return checkpointer.restore(
            directory, args=ocp.args.PyTreeRestore(restore_args=restore_args)
        )


def digests(directory: Path) -> dict[str, dict[str, Any]]:
    """{path under the directory: {"bytes", "sha256"}} of every file."""
    return {
        p.relative_to(directory).as_posix(): {"bytes": p.stat().st_size, "sha256": file_sha256(p)}
        for p in _files(directory)
    }


def check_files(directory: Path, expected: Mapping[str, Any]) -> None:
    """Raises InputError that names the first file missing, cut off or damaged."""
    for name, entry in expected.items():
        path = directory / name
        if not isinstance(entry, Mapping) or not {"bytes", "sha256"} <= entry.keys():
            raise InputError(f"{directory.parent}: metadata of {name} has no bytes or no sha256")
        if not path.is_file():
            raise InputError(f"{path}: missing, the directory is incomplete")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise InputError(f"{path}: {size} bytes, expected {entry['bytes']}: cut off or changed")
        if file_sha256(path) != entry["sha256"]:
            raise InputError(f"{path}: content does not match its SHA-256: damaged or changed")


def move_into_place(temporary: Path, directory: Path) -> None:
    """Flushes `temporary` to the disk and renames it to `directory`, replacing what is there."""
    for path in [*temporary.rglob("*"), temporary]:
        sync(path)
    if directory.exists():
        with unfinished_folder(directory.parent, name=directory.name) as folder:
            os.replace(directory, folder / "old")
            try:
                os.replace(temporary, directory)
            except OSError:
                os.replace(folder / "old", directory)
                raise
    else:
        os.replace(temporary, directory)
    sync(directory.parent)


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[ocp.Checkpointer, ocp.PyTreeCheckpointHandler]]:
    """Saves and restores here alone: weight directories are read and written by one process."""
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        index = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"weights_{index}"
        )
    # Without copies and compression, which saves little on floats, writing takes no memory beside
    # the arrays themselves.
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    handler = ocp.PyTreeCheckpointHandler(
        multiprocessing_options=options, type_handler_registry=registry, use_compression=False
    )
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        yield checkpointer, handler


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())
