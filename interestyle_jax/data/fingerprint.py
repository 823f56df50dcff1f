"""Short names for the content of a data set or network, so that a resumed run notices another."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from interestyle_jax.data.manifest import NAME
from interestyle_jax.errors import InputError

# Larger files are not read whole: this many blocks of this many bytes, evenly spread.
_WHOLE_BYTES = 64 * 2**20
_BLOCKS, _BLOCK_BYTES = 256, 64 * 2**10
# Of a larger data set with a manifest, that many blocks a shard: its checksums cover the rest.
_MANIFEST_BYTES, _MANIFEST_BLOCKS = 2**30, 2


def fingerprint(data_dir: str | Path) -> str:
    """Hex digest (16 digits) of the names, sizes and contents of a data set's files.

    Files of more than 64 MiB enter by 256 evenly spread blocks of 64 KiB, the first and the last
    among them. A data set of more than 1 GiB that has a manifest enters by this, with the
    checksums it holds, and the first and last block of each file: whole shards are not read
    (`interestyle data --verify` does that). Neither times nor the directory's own name matter, so
    a copy has the same one.

    Raises InputError when `data_dir` is no data set.
    """
    directory = Path(data_dir)
    if not (directory / "dataset_info.json").is_file():
        raise InputError(f"{directory}: is not a data set (it has no dataset_info.json)")
    digest = hashlib.sha256()
    files = sorted(p for p in directory.iterdir() if p.is_file())
    total = sum(path.stat().st_size for path in files)
    short = total > _MANIFEST_BYTES and (directory / NAME).is_file()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode(errors="surrogateescape"))
        whole = _BLOCK_BYTES if short and path.name != NAME else _WHOLE_BYTES
        blocks = _MANIFEST_BLOCKS if short else _BLOCKS
        with open(path, "rb") as file:
            if size <= whole:
                digest.update(file.read())
                continue
            for block in range(blocks):
                file.seek((size - _BLOCK_BYTES) * block // (blocks - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]


def fingerprint_arrays(tree: Any) -> str:
    """Hex digest (16 digits) of the paths, types, shapes and contents of a tree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()[:16]
