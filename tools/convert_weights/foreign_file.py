"""Files that are no checkpoint, recognised by their first bytes: what they are and what to do."""

from pathlib import Path

from interestyle_jax.errors import InputError

EXPECTED = "expected a checkpoint (PyTorch, safetensors, or a pickle of arrays)"
# What a download gives where the file was not to be had.
DOWNLOAD = f"{EXPECTED}; download it again"
PAGE = f"a web page, as a failed download leaves it, {DOWNLOAD}"
ARCHIVE = f"{EXPECTED}; unpack it and give what is inside"
STARTS = (
    (b"version https://git-lfs", f"a git-lfs pointer, {EXPECTED}; get the file by git lfs pull"),
    (b"<!doctype html", PAGE),
    (b"<html", PAGE),
    (b"<head", PAGE),
    (b"<?xml", f"an XML document, as a server's error is, {DOWNLOAD}"),
    (b"<error", f"an XML document, as a server's error is, {DOWNLOAD}"),
    (b"\x89png", f"a PNG image, {EXPECTED}"),
    (b"\xff\xd8\xff", f"a JPEG image, {EXPECTED}"),
    (b"\x1f\x8b", f"a gzip file, {ARCHIVE}"),
    (b"bzh", f"a bzip2 file, {ARCHIVE}"),
    (b"\xfd7zxz", f"an xz file, {ARCHIVE}"),
    (b"7z\xbc\xaf", f"a 7z archive, {ARCHIVE}"),
    (b"rar!", f"a RAR archive, {ARCHIVE}"),
    (b"%pdf", f"a PDF document, {EXPECTED}"),
    (b"\x89hdf", f"an HDF5 file, {EXPECTED}"),
    (b"gguf", f"a GGUF file, {EXPECTED}"),
)
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
# As many bytes as a file is recognised by.
LENGTH = 512
# Bytes that no text holds.
BINARY = set(range(32)) - set(b"\t\n\r\f\x1b")


def check(path: Path, start: bytes) -> None:
    """Raises InputError where the file begins as no checkpoint does; `start` has `LENGTH` bytes."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    what = next((what for magic, what in STARTS if text.startswith(magic)), None)
    if start[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        what = f"a tar archive, {ARCHIVE}"
    if what is None and text[:1] in (b"{", b"[") and not BINARY & set(start):
        what = f"JSON text, {DOWNLOAD}"
    if what is not None:
        raise InputError(f"{path}: is {what}")
