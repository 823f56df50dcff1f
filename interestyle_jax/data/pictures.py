"""Pictures and masks on disk: reading whatever users have, writing atomically."""

import contextlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

from interestyle_jax.errors import InputError, file_error

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
JPEG_QUALITY = 95


def is_picture(path: Path) -> bool:
    """Whether a file is named as pictures are; hidden ones (macOS adds `._a.jpg`) are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_pictures(path: str | Path) -> list[Path]:
    """The pictures of a directory, sorted by name (not of its subdirectories), or the file itself.

    Raises InputError when the path is missing, the directory holds no picture, or two pictures
    have the same name up to the suffix (their results would overwrite each other).
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory")
    found = sorted(p for p in path.iterdir() if is_picture(p))
    if not found:
        raise InputError(f"{path}: holds no picture ({', '.join(SUFFIXES)})")
    by_stem: dict[str, Path] = {}
    for picture in found:
        other = by_stem.setdefault(picture.stem, picture)
        if other is not picture:
            raise InputError(f"{picture}: has the same name as {other.name} up to the suffix")
    return found


def read_picture(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads a picture as uint8 RGB [H, W, 3].

    Grayscale is repeated to three channels; transparency is laid over white; 16-bit grayscale is
    scaled to 8 bits (65535 -> 255; PIL reads 16-bit colour as its upper 8 bits); the EXIF
    orientation is applied.

    Raises InputError naming the file when it is missing, unreadable, cut off or not a picture.
    """
    picture = _eight_bit(_open(Path(path)), Path(path))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def read_mask(path: str | Path) -> UInt8[np.ndarray, "H W 1"]:
    """Reads a mask as uint8 [H, W, 1], 255 = inside.

    Grayscale of 8 or 16 bits, black and white, and colour with three equal channels are taken; a
    mask whose values are only 0 and 1 is scaled to 0 and 255.

    Raises InputError naming the file when it is unreadable, has channels that differ, or is
    partly transparent.
    """
    path = Path(path)
    picture = _eight_bit(_open(path), path)
    rgba = np.array(picture.convert("RGBA"))
    if (rgba[..., 3] != 255).any():
        raise InputError(f"{path}: mask is partly transparent, expected one opaque channel")
    if (rgba[..., :1] != rgba[..., 1:3]).any():
        raise InputError(f"{path}: mask has coloured pixels, expected one channel (grayscale)")
    mask = rgba[..., :1]
    return np.ascontiguousarray(mask * 255 if mask.max() == 1 else mask)


def resize_picture(
    picture: UInt8[np.ndarray, "H W C"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w C"]:
    """uint8 [H, W, 1 or 3] -> uint8 [*shape, 1 or 3] (height, width), by PIL's bilinear filter.

    The one resize of data sets, encoders' inputs and measurements, as all official code has it
    (torchvision's `Resize` on PIL pictures): a triangle as wide as the reduction, rounded to 8 bits
    after each axis; squeezed where the proportions differ.
    """
    if picture.shape[:2] == tuple(shape):
        return picture
    height, width = shape
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, picture.shape[-1])


def central_square(picture: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "S S C"]:
    """The largest square in the middle of [H, W, C]."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def save_picture(path: str | Path, picture: UInt8[np.ndarray, "H W C"]) -> None:
    """Writes uint8 [H, W, 3] or [H, W, 1] to `path`, in the format of its suffix, whole or not.

    Raises InputError naming the file when it cannot be written; nothing half-written remains.
    """
    path = Path(path)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise ValueError(f"{path}: {picture.dtype}{list(picture.shape)}, not uint8 [H, W, 1 or 3]")
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format is None:
        raise InputError(f"{path}: '{path.suffix}' is no picture suffix ({', '.join(SUFFIXES)})")
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(
        buffer, image_format
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise file_error(error, f"{path}: cannot be written") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def encode_png(picture: UInt8[np.ndarray, "H W C"], *, compress_level: int = 6) -> bytes:
    """uint8 [H, W, 3] or [H, W, 1] -> PNG bytes; `compress_level` is zlib's, 0 ... 9."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(
        buffer, "PNG", compress_level=compress_level
    )
    return buffer.getvalue()


def encode_jpeg(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """uint8 [H, W, 3] -> JPEG bytes of quality 95, colours at full resolution (4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_png(encoded: bytes) -> UInt8[np.ndarray, "H W C"]:
    """PNG (or JPEG) bytes of our own data sets -> uint8 [H, W, 3] or [H, W, 1]."""
    picture = np.array(Image.open(io.BytesIO(encoded)))
    return picture[..., None] if picture.ndim == 2 else picture


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            # PIL warns of damage that it reads past, and of large pictures, which are the user's
            # choice; what it cannot read, and its hard limit on sizes, are errors.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(path.read_bytes()))
            picture.load()
            return ImageOps.exif_transpose(picture)
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path}: is not a picture, or its beginning is cut off") from error
    # Damaged files raise nearly anything inside of PIL.
    except Exception as error:
        raise file_error(error, f"{path}: unreadable or cut off") from error


def _eight_bit(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode == "F":
        raise InputError(f"{path}: has floating-point pixels, expected 8 or 16 bits a channel")
    if not picture.mode.startswith("I"):
        return picture
    values = np.array(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: has 32-bit pixels, expected 8 or 16 bits a channel")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
