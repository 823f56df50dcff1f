"""Images and masks on disk: reading whatever users have, writing atomically."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.one_line import print_notice
from interestyle_jax.whole_files import write_whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff")
JPEG_QUALITY = 95
# What commands leave beside images, and data sets too; other files that are left out are reported.
NO_IMAGES = (".json", ".jsonl", ".txt", ".md", ".csv", ".tsv", ".npz", ".npy", ".html", ".pdf")
MOST_NAMED = 3
ORIENTATION = 0x0112
# What tag ORIENTATION says has to be done; 1, and what is none of its values, is nothing.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks without which a PNG has the same pixels, and that may be long.
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def is_image(path: Path) -> bool:
    """Whether a file is named as images are; hidden ones (macOS adds `._a.jpg`) are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_images(path: str | Path) -> list[Path]:
    """The images of a directory, sorted by name (not of its subdirectories), or the file itself.

    Files of other kinds are named on stderr, see `left_out`.

    Raises InputError when the path is missing, the directory holds no image, or two images
    have the same name up to the suffix (their results would overwrite each other).
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory")
    files = list(path.iterdir())
    found = sorted(p for p in files if is_image(p))
    if not found:
        raise no_image(path, files)
    tell_left_out(path, files)
    by_stem: dict[str, Path] = {}
    for image in found:
        other = by_stem.setdefault(image.stem, image)
        if other is not image:
            raise InputError(f"{image}: has the same name as {other.name} up to the suffix")
    return found


def no_image(folder: Path, files: Iterable[Path]) -> InputError:
    """The error for a folder without images; it names other files that may be some."""
    others = left_out(files)
    there = f", but {others}" if others else ""
    return InputError(f"{folder}: holds no image ({', '.join(SUFFIXES)}){there}")


def tell_left_out(folder: Path, files: Iterable[Path]) -> None:
    """Names on stderr the files of a folder that are not read, where there are any."""
    others = left_out(files)
    if others:
        print_notice(f"{folder}: not read: {others}")


def left_out(files: Iterable[Path]) -> str:
    """In words, the files that look for a reader but are not read: of HEIC, GIF, raw formats ...

    Hidden files, and those that commands write beside images, are not among them. Empty where
    there are none.
    """
    known = (*SUFFIXES, *NO_IMAGES)
    names = sorted(
        path.name
        for path in files
        if not path.name.startswith(".") and path.suffix.lower() not in known and path.is_file()
    )
    if not names:
        return ""
    shown = ", ".join(names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    count = f"{len(names)} file{'s' if len(names) > 1 else ''}"
    return f"{count} of another kind: {shown}{more}"


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image as uint8 RGB [H, W, 3].

    Grayscale is repeated to three channels; transparency is laid over white; 16-bit grayscale is
    scaled to 8 bits (65535 -> 255; PIL reads 16-bit colour as its upper 8 bits); the EXIF
    orientation is applied.

    Raises InputError naming the file when it is missing, unreadable, cut off or not an image.
    """
    image = _eight_bit(open_image(Path(path)), Path(path))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def read_mask(path: str | Path) -> UInt8[np.ndarray, "H W 1"]:
    """Reads a mask as uint8 [H, W, 1], 255 = inside.

    Grayscale of 8 or 16 bits, black and white, and colour with three equal channels are taken; a
    mask whose values are only 0 and 1 is scaled to 0 and 255.

    Raises InputError naming the file when it is unreadable, has channels that differ, or is
    partly transparent.
    """
    path = Path(path)
    image = _eight_bit(open_image(path), path)
    rgba = np.array(image.convert("RGBA"))
    if (rgba[..., 3] != 255).any():
        raise InputError(f"{path}: mask is partly transparent, expected one opaque channel")
    if (rgba[..., :1] != rgba[..., 1:3]).any():
        raise InputError(f"{path}: mask has coloured pixels, expected one channel (grayscale)")
    mask = rgba[..., :1]
    return np.ascontiguousarray(mask * 255 if mask.max() == 1 else mask)


def resize_image(
    image: UInt8[np.ndarray, "H W C"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w C"]:
    """uint8 [H, W, 1 or 3] -> uint8 [*shape, 1 or 3] (height, width), by PIL's bilinear filter.

    The one resize of data sets, encoders' inputs and measurements, as all official code has it
    (torchvision's `Resize` on PIL images): a triangle as wide as the reduction, rounded to 8 bits
    after each axis; squeezed where the proportions differ.
    """
    if image.shape[:2] == tuple(shape):
        return image
    height, width = shape
    pil = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(pil.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[-1])


def central_square(image: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "S S C"]:
    """The largest square in the middle of [H, W, C]."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def save_image(path: str | Path, image: UInt8[np.ndarray, "H W C"]) -> None:
    """Writes uint8 [H, W, 3] or [H, W, 1] to `path`, in the format of its suffix, whole or not.

    Raises InputError naming the file when it cannot be written; nothing half-written remains.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"{path}: {image.dtype}{list(image.shape)}, not uint8 [H, W, 1 or 3]")
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format is None:
        raise InputError(f"{path}: '{path.suffix}' is no image suffix ({', '.join(SUFFIXES)})")
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, image_format)
    write_whole(path, buffer.getvalue())


def encode_png(image: UInt8[np.ndarray, "H W C"], *, compress_level: int = 6) -> bytes:
    """uint8 [H, W, 3] or [H, W, 1] -> PNG bytes; `compress_level` is zlib's, 0 ... 9."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        buffer, "PNG", compress_level=compress_level
    )
    return buffer.getvalue()


def encode_jpeg(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """uint8 [H, W, 3] -> JPEG bytes of quality 95, colours at full resolution (4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_png(encoded: bytes) -> UInt8[np.ndarray, "H W C"]:
    """PNG (or JPEG) bytes of our own data sets -> uint8 [H, W, 3] or [H, W, 1]."""
    image = np.array(Image.open(io.BytesIO(encoded)))
    return image[..., None] if image.ndim == 2 else image


def open_image(path: Path) -> Image.Image:
    """An image file with its pixels read, turned as its EXIF orientation says.

    Of PNG, long texts are read past.

    Raises InputError naming the file when it is missing, unreadable, cut off or not an image.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = path.read_bytes()
        try:
            return _opened(content)
        # PIL refuses texts of more than a megabyte, such as the workflows of image generators.
        except (ValueError, zlib.error):
            if not content.startswith(_PNG):
                raise
            return _opened(_without_texts(content))
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path}: is not an image, or its beginning is cut off") from error
    # Damaged files raise nearly anything inside of PIL.
    except Exception as error:
        raise file_error(error, f"{path}: unreadable or cut off") from error


def _opened(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # PIL warns of damage that it reads past, and of large images, which are the user's
        # choice; what it cannot read, and its hard limit on sizes, are errors.
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(content))
        image.load()
        # PIL turns TIFF files by itself while it loads them, and takes the tag away.
        turn = _TURNS.get(_orientation(image))
        return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The tag's value; 1 where there is none or the tags cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    # `PIL.ImageOps.exif_transpose` would fail of any other tag that it cannot write.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _without_texts(content: bytes) -> bytes:
    """A PNG file without the chunks of _PNG_TEXTS; one that is cut off stays so."""
    kept, start = [_PNG], len(_PNG)
    while start + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        if kind not in _PNG_TEXTS:
            kept.append(content[start : start + length + 12])
        start += length + 12
    return b"".join(kept)


def _eight_bit(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{path}: has floating-point pixels, expected 8 or 16 bits a channel")
    if not image.mode.startswith("I"):
        return image
    values = np.array(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: has 32-bit pixels, expected 8 or 16 bits a channel")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
