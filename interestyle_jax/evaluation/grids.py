"""Labelled grids of images, pixel for pixel."""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from interestyle_jax.data import pixels
from interestyle_jax.errors import InputError
from interestyle_jax.one_line import one_line

FONT_SIZE = 13
GAP = 4
SMALLEST_CELL, LARGEST_CELL = 128, 256
FULL_RED = 0.5


def to_uint8(image: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """As `pixels.to_uint8`: [..., 3] floats in [-1, 1] -> uint8; refuses damage.

    Raises:
      InputError: values that are not finite, which damaged weights give.
    """
    if not np.isfinite(image).all():
        raise InputError(
            "images: some values are not finite; are the weights that drew them whole?"
        )
    return pixels.to_uint8(np.asarray(image, np.float32))


def mask_image(mask: Float[np.ndarray, "H W 1"]) -> Float[np.ndarray, "H W 3"]:
    """[H, W, 1] in [0, 1] -> grey [H, W, 3] in [-1, 1]."""
    return np.repeat(np.asarray(mask, np.float32) * 2 - 1, 3, axis=-1)


def error_image(
    a: Float[np.ndarray, "H W 3"], b: Float[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H W 3"]:
    """How far two images [H, W, 3] differ as shown (clipped): white where equal, red where far.

    Colours as in the paper's Fig. 1; full red from FULL_RED, the mean over the channels of the
    difference. Returns [H, W, 3] in [-1, 1].
    """
    a, b = (np.clip(np.asarray(x, np.float32), -1, 1) for x in (a, b))
    pale = 1 - 2 * np.clip(np.abs(a - b).mean(-1, keepdims=True) / FULL_RED, 0, 1)
    return np.concatenate([np.ones_like(pale), pale, pale], axis=-1)


def draw_grid(
    rows: Sequence[Sequence[Float[np.ndarray, "_ _ 3"]]],
    column_labels: Sequence[str],
    *,
    row_labels: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws images in rows under column labels.

    Args:
      rows: images [H, W, 3] float in [-1, 1]; each row as long as `column_labels`. Small
        images are enlarged by a whole factor, large ones reduced, to cells of 128 to 256 px.
      column_labels: a label a column, wrapped to its width.
      row_labels: a label a row, on the left, or None.

    Returns:
      uint8 [H, W, 3], white between the images.
    """
    cell = _cell_size(max(p.shape[0] for row in rows for p in row))
    font = _font(FONT_SIZE)
    headers = [_wrap(label, cell, font) for label in column_labels]
    line = FONT_SIZE + 4
    top = line * max(len(h) for h in headers) + 2 * GAP
    sides = [_wrap(label, cell, font) for label in row_labels or ()]
    widest = max((font.getlength(text) for side in sides for text in side), default=0)
    left = int(widest) + 3 * GAP if sides else GAP
    width = left + len(column_labels) * (cell + GAP)
    canvas = Image.new("RGB", (width, top + len(rows) * (cell + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    for j, header in enumerate(headers):
        centre = left + j * (cell + GAP) + cell // 2
        for k, text in enumerate(header):
            draw.text((centre, top - GAP - line * (len(header) - k)), text, "black", font, "ma")
    for i, row in enumerate(rows):
        y = top + i * (cell + GAP)
        if sides:
            middle = y + cell // 2 - line * len(sides[i]) // 2
            for k, text in enumerate(sides[i]):
                draw.text((left - 2 * GAP, middle + k * line), text, "black", font, "ra")
        for j, image in enumerate(row):
            canvas.paste(_fit(to_uint8(image), cell), (left + j * (cell + GAP), y))
    return np.asarray(canvas)


def iteration_label(i: int) -> str:
    """The name of y_hat_i in labels."""
    return "ŷ" + "".join(chr(0x2080 + int(digit)) for digit in str(i))


def _cell_size(size: int) -> int:
    if size >= SMALLEST_CELL:
        return min(size, LARGEST_CELL)
    return size * -(-SMALLEST_CELL // size)


def _fit(shown: np.ndarray, cell: int) -> Image.Image:
    """The image in a white square of `cell` pixels, centred, its shape kept."""
    image = Image.fromarray(shown)
    scale = cell / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    size = (width, height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    square = Image.new("RGB", (cell, cell), "white")
    square.paste(image, ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return square


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font has no subscripts; matplotlib brings DejaVu Sans.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _wrap(label: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines of at most `width` pixels, broken after spaces, "_" and "-" where that helps."""
    lines, current = [], ""
    label = one_line(label)
    pieces = label.replace("_", "_\0").replace("-", "-\0").replace(" ", " \0").split("\0")
    for piece in pieces:
        if current and font.getlength((current + piece).rstrip()) > width:
            lines.append(current)
            current = ""
        current += piece
        while font.getlength(current.rstrip()) > width:
            cut = next(
                n
                for n in range(len(current) - 1, 0, -1)
                if n == 1 or font.getlength(current[:n]) <= width
            )
            lines.append(current[:cut])
            current = current[cut:]
    return [text.rstrip() for text in [*lines, current]]
