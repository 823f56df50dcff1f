"""Reading and writing images: every kind of file users have, and every bad one."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from interestyle_jax.data.images import (
    central_square,
    decode_png,
    encode_png,
    list_images,
    read_image,
    read_mask,
    resize_image,
    save_image,
)
from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.interest.providers.label_files import read_labels

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 3), np.uint8)


def png_chunks(width: int, height: int, colour_type: int, rows: np.ndarray) -> bytes:
    """A 16-bit PNG written by hand: PIL cannot write 16-bit colour."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        tail = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + tail

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def test_rgb_round_trip(tmp_path):
    save_image(tmp_path / "a.png", COLOUR)
    assert np.array_equal(read_image(tmp_path / "a.png"), COLOUR)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert np.array_equal(decode_png(encode_png(COLOUR)), COLOUR)
    mask = COLOUR[..., :1]
    assert np.array_equal(decode_png(encode_png(mask)), mask)


def test_grayscale_becomes_three_channels(tmp_path):
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), COLOUR[..., [0, 0, 0]])


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.dstack([COLOUR, np.full((6, 8), 255, np.uint8)])
    rgba[:3, :, 3] = 0
    rgba[3, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert (read[:3] == 255).all()
    assert np.array_equal(read[4:], COLOUR[4:])
    expected = COLOUR[3] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(read[3] - expected).max() <= 1


def test_palette_with_transparent_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("L")
    image = image.convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    image.save(tmp_path / "a.png", transparency=0)
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 1].tolist() == [200, 100, 50]


def test_sixteen_bit_grayscale_is_scaled(tmp_path):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 1], expected)
    assert np.array_equal(read_mask(tmp_path / "a.png")[..., 0], expected)


def test_sixteen_bit_colour_is_scaled(tmp_path):
    rows = RNG.integers(0, 65536, (2, 12)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_chunks(4, 2, 2, rows))
    read = read_image(tmp_path / "a.png").astype(int)
    assert np.abs(read - rows.reshape(2, 4, 3) / 257).max() <= 1


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(COLOUR, -1))


def tiff_tags(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Tags (tag, type, count, value) as EXIF and TIFF files hold them; PIL cannot write all."""
    body, start, values = struct.pack("<H", len(entries)), 8 + 2 + 12 * len(entries) + 4, b""
    for tag, kind, count, value in entries:
        body += struct.pack("<HHI", tag, kind, count)
        if len(value) <= 4:
            body += value.ljust(4, b"\0")
        else:
            body += struct.pack("<I", start + len(values))
            values += value
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + values


BROKEN_TAGS = {
    "resolution -1/0": (0x011A, 10, 1, struct.pack("<ii", -1, 0)),
    "resolution as text": (0x011A, 2, 7, b"72 dpi\0"),
    "unit as text": (0x0128, 2, 4, b"inch"),
    "date as numbers": (0x0132, 4, 3, bytes(12)),
}


@pytest.mark.parametrize("name", BROKEN_TAGS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_is_applied_beside_broken_numbers(tmp_path, suffix, name):
    flat = np.repeat(
        np.repeat(np.uint8([[[9] * 3, [90] * 3], [[160] * 3, [250] * 3]]), 16, 0), 24, 1
    )
    exif = tiff_tags((0x0112, 3, 1, struct.pack("<H", 6)), BROKEN_TAGS[name])
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(flat).save(path, exif=b"Exif\0\0" + exif if suffix == "jpg" else exif)
    read = read_image(path).astype(int)
    assert read.shape == (48, 32, 3)
    assert np.abs(read - np.rot90(flat, -1)).max() <= 8


@pytest.mark.parametrize("name", BROKEN_TAGS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_are_turned_by_their_orientation_alone(tmp_path, name, orientation):
    gray = RNG.integers(0, 256, (6, 8), np.uint8)
    long, short = (lambda x: struct.pack("<I", x)), (lambda x: struct.pack("<H", x))
    tags = [
        (0x0100, 4, 1, long(8)), (0x0101, 4, 1, long(6)), (0x0102, 3, 1, short(8)),
        (0x0103, 3, 1, short(1)), (0x0106, 3, 1, short(1)), (0x0111, 4, 1, long(0)),
        (0x0112, 3, 1, short(orientation)), (0x0115, 3, 1, short(1)), (0x0116, 4, 1, long(6)),
        (0x0117, 4, 1, long(48)), BROKEN_TAGS[name],
    ]  # fmt: skip
    tags[5] = (0x0111, 4, 1, long(len(tiff_tags(*tags))))
    (tmp_path / "a.tif").write_bytes(tiff_tags(*tags) + gray.tobytes())
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gray).save(tmp_path / "right.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "right.png"))
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 0], np.asarray(expected))


@pytest.mark.parametrize(
    "value", [(3, 1, struct.pack("<H", 77)), (2, 4, b"top\0"), (5, 1, bytes(8))]
)
def test_an_orientation_that_is_none_turns_nothing(tmp_path, value):
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=tiff_tags((0x0112, *value)))
    assert np.array_equal(read_image(tmp_path / "a.png"), COLOUR)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["text", "international"])
def test_png_with_long_texts_is_read(tmp_path, compressed, kind):
    texts, exif = PngImagePlugin.PngInfo(), Image.Exif()
    exif[0x0112] = 6
    add = texts.add_itxt if kind == "international" else texts.add_text
    for name in "ab":
        add(name, "workflow " * (1 << 18), zip=compressed)
    Image.fromarray(COLOUR).save(tmp_path / "a.png", pnginfo=texts, exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(COLOUR, -1))
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / "labels.png", pnginfo=texts)
    assert np.array_equal(read_labels(tmp_path / "labels.png"), COLOUR[..., 0])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.6])
def test_cut_off_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"half\.{suffix}: (unreadable|is not an image)"):
        read_image(path)


def test_damaged_and_missing_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(InputError, match=r"text\.png: is not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match=r"float\.tif: has floating-point"):
        read_image(tmp_path / "float.tif")


def test_masks(tmp_path):
    mask = np.where(RNG.random((6, 8, 1)) < 0.5, 0, 255).astype(np.uint8)
    mask[0, :2, 0] = (0, 255)
    for name, image in {
        "gray.png": Image.fromarray(mask[..., 0]),
        "bits.png": Image.fromarray(mask[..., 0]).convert("1"),
        "colour.png": Image.fromarray(mask.repeat(3, -1)),
        "ones.png": Image.fromarray(mask[..., 0] // 255),
    }.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name), mask), name
    save_image(tmp_path / "coloured.png", COLOUR)
    with pytest.raises(InputError, match=r"coloured\.png: mask has coloured pixels"):
        read_mask(tmp_path / "coloured.png")
    Image.fromarray(mask.repeat(4, -1)).save(tmp_path / "alpha.png")
    with pytest.raises(InputError, match=r"alpha\.png: mask is partly transparent"):
        read_mask(tmp_path / "alpha.png")


def test_list_images(tmp_path):
    with pytest.raises(InputError, match="no such file or directory"):
        list_images(tmp_path / "gone")
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path)
    for name in ("b.png", "a.PNG", "c.jpg"):
        Image.fromarray(COLOUR).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert [p.name for p in list_images(tmp_path)] == ["a.PNG", "b.png", "c.jpg"]
    assert list_images(tmp_path / "b.png") == [tmp_path / "b.png"]
    Image.fromarray(COLOUR).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="same name as"):
        list_images(tmp_path)


def test_the_central_square():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    for image in (wide, wide.transpose(1, 0, 2)):
        square = central_square(image)
        assert square.shape == (4, 4, 3) and (square == 200).all()


@pytest.mark.parametrize("shape", [(5, 5), (13, 4), (40, 50), (16, 20)])
def test_resize_is_a_triangle_as_wide_as_the_reduction(shape):
    image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)

    def weights(inputs, outputs):
        scale = inputs / outputs
        centres = (np.arange(outputs)[:, None] + 0.5) * scale - 0.5
        found = np.maximum(0, 1 - np.abs(centres - np.arange(inputs)) / max(scale, 1))
        return found / found.sum(1, keepdims=True)

    columns, rows = weights(20, shape[1]), weights(16, shape[0])
    want = np.einsum("ih,hwc,jw->ijc", rows, image, columns)
    found = resize_image(image, shape)
    # Rounded to 8 bits after each axis.
    np.testing.assert_allclose(found, want, atol=1.01)
    mask = resize_image(image[..., :1], shape)
    assert mask.shape == (*shape, 1) and np.array_equal(mask, found[..., :1])


def test_save_leaves_nothing_half_written(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", COLOUR)
    before = (tmp_path / "a.png").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match=r"a\.png: cannot be written: No space left"):
        save_image(tmp_path / "a.png", 255 - COLOUR)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(InputError, match="'.xyz' is no image suffix"):
        save_image(tmp_path / "a.xyz", COLOUR)


def test_save_jpeg(tmp_path):
    flat = np.full((16, 16, 3), 90, np.uint8)
    save_image(tmp_path / "a.jpg", flat)
    assert Image.open(io.BytesIO((tmp_path / "a.jpg").read_bytes())).format == "JPEG"
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - 90).max() <= 2


@pytest.mark.parametrize(("at", "count"), [(34, 181), (14, 141), (8, 1900)])
def test_what_pil_warns_of_is_told_once(tmp_path, at, count):
    """Warnings are errors here, and lines of their own on a user's screen."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    path = tmp_path / "a.tiff"
    Image.fromarray(pixels).save(path, compression="tiff_lzw")
    data = path.read_bytes()
    path.write_bytes(data[:at] + data[at + count :])
    with pytest.raises(InputError, match="a.tiff"):
        read_image(path)
