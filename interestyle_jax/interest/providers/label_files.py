"""Label maps and masks that lie in files beside the images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.data.images import is_image, no_image, open_image
from interestyle_jax.errors import InputError


def files_by_name(folder: str | Path, *, option: str) -> dict[str, Path]:
    """{name up to the suffix: file} of the images in a folder and those below it.

    Numbers go without leading zeros, so that "00012" is "12", as CelebA-HQ's files need it.

    Raises:
      InputError: no such folder, no image in it, or two files of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{option}: {folder}: no such directory")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if is_image(p)):
        other = found.setdefault(file_key(path.stem), path)
        if other is not path:
            raise InputError(f"{path}: has the same name as {other} up to the suffix")
    if not found:
        raise InputError(f"{option}: {no_image(folder, folder.rglob('*'))}")
    return found


def file_key(stem: str) -> str:
    """A name by which files are paired: numbers lose leading zeros."""
    return str(int(stem)) if stem.isascii() and stem.isdigit() else stem


def read_labels(path: Path) -> UInt8[np.ndarray, "H W"]:
    """Reads a label map, uint8 [H, W]: grey values, or a palette's indices.

    Raises:
      InputError: unreadable, coloured, or with more than 8 bits.
    """
    image = open_image(path)
    values, mode = np.array(image), image.mode
    if mode in ("RGB", "RGBA") and (values[..., :1] == values[..., 1:3]).all():
        values = values[..., 0]
    if values.ndim != 2 or values.dtype not in (np.uint8, np.bool_):
        raise InputError(f"{path}: is an image of mode {mode}, expected label indices of 8 bits")
    return values.astype(np.uint8)


def read_at_size(path: Path, read: Callable[[Path], np.ndarray], shape: tuple) -> np.ndarray:
    """What `read` gives for the file, [H, W, ...], brought to the image's [H, W].

    Sizes of the same proportions are resized to the nearest sample.

    Raises:
      InputError: other proportions, and what `read` raises.
    """
    values = read(path)
    (height, width), (rows, columns) = shape[:2], values.shape[:2]
    if abs(rows * width - columns * height) > max(height, width):
        raise InputError(f"{path}: is {columns}x{rows}, the image {width}x{height}")
    if (rows, columns) == (height, width):
        return values
    # Sample centres, as PIL's NEAREST takes them.
    row = ((np.arange(height) + 0.5) * rows / height).astype(int)
    column = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return np.ascontiguousarray(values[row][:, column])
