"""Checksums of files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_PIECE = 1 << 20


def file_sha256(path: Path, *, advance: Callable[[int], object] = lambda size: None) -> str:
    """Hex SHA-256 of a file; `advance` is called with the bytes of every piece that was read."""
    # `hashlib.file_digest` does not say how far it is.
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()
