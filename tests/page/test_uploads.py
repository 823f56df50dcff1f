"""Uploads are limited before they are decoded."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.page import uploads
from interestyle_jax.page.uploads import read_upload


def write_bomb(path, side: int) -> None:
    """A black and white PNG of side x side pixels in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    packer = zlib.compressobj(9)
    row = bytes(side // 8 + 1)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(
    ("side", "message"),
    [(8000, "8000 x 8000 pixels, expected at most 40"), (20000, "too many pixels, expected at")],
)
def test_bombs_are_refused_undecoded(tmp_path, monkeypatch, side, message):
    write_bomb(tmp_path / "bomb.png", side)
    assert (tmp_path / "bomb.png").stat().st_size < 200_000
    monkeypatch.setattr(uploads, "read_image", lambda path: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=rf"^bomb\.png: {message}"):
        read_upload(tmp_path / "bomb.png")


def test_other_files_are_refused_in_words(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "none.png"):
        with pytest.raises(InputError, match=f"^{name}: is not an image that is read here"):
            read_upload(tmp_path / name)
    Image.new("P", (8, 8)).save(tmp_path / "a.gif")
    with pytest.raises(InputError, match=r"^a\.gif: is not an image that is read here \(PNG"):
        read_upload(tmp_path / "a.gif")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    np.testing.assert_array_equal(read_upload(tmp_path / "whole.png"), noise)
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"^cut\.png: unreadable or cut off"):
        read_upload(tmp_path / "cut.png")
    monkeypatch.setattr(uploads, "LARGEST_BYTES", 100)
    with pytest.raises(InputError, match=r"^whole\.png: 0 MB, expected at most"):
        read_upload(tmp_path / "whole.png")
