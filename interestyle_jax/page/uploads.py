"""Images that people upload: limited before they are decoded, refused in words."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError

LARGEST_BYTES = 20 * 2**20
# A file of kilobytes may hold gigapixels.
LARGEST_PIXELS = 40_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def read_upload(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an uploaded image as `read_image` does, if it is not too large.

    Raises:
      InputError: more than LARGEST_BYTES or LARGEST_PIXELS, of none of FORMATS, or unreadable; it
        names the file without its folder.
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0
    if size > LARGEST_BYTES:
        raise InputError(
            f"{path.name}: {size / 2**20:.0f} MB, expected at most {LARGEST_BYTES / 2**20:.0f} MB"
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: too many pixels, {_LIMIT}") from error
    # PIL raises nearly anything of a damaged beginning.
    except Exception as error:
        raise InputError(
            f"{path.name}: is not an image that is read here ({', '.join(FORMATS)}), or damaged"
        ) from error
    if width * height > LARGEST_PIXELS:
        raise InputError(f"{path.name}: {width} x {height} pixels, {_LIMIT}")
    try:
        return read_image(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error


_LIMIT = f"expected at most {LARGEST_PIXELS // 10**6} million"
