"""A short name for the content of a data set, so that a resumed run notices another one."""

import hashlib
from pathlib import Path

from interestyle_jax.errors import InputError

# Larger files are not read whole: this many blocks of this many bytes, evenly spread.
_WHOLE_BYTES = 64 * 2**20
_BLOCKS, _BLOCK_BYTES = 256, 64 * 2**10


def fingerprint(data_dir: str | Path) -> str:
    """Hex digest (16 digits) of the names, sizes and contents of a data set's files.

    Files of more than 64 MiB enter by 256 evenly spread blocks of 64 KiB, the first and the last
    among them. Neither times nor the directory's own name matter, so a copy has the same one.

    Raises InputError when `data_dir` is no data set.
    """
    directory = Path(data_dir)
    if not (directory / "dataset_info.json").is_file():
        raise InputError(f"{directory}: is not a data set (it has no dataset_info.json)")
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.iterdir() if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with open(path, "rb") as file:
            if size <= _WHOLE_BYTES:
                digest.update(file.read())
                continue
            for block in range(_BLOCKS):
                file.seek((size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]
