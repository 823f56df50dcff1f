"""Images with their masks drawn over them, on sheets to look at."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from interestyle_jax.one_line import one_line

COLUMNS, ROWS = 5, 4
TILE, CAPTION, GAP = 256, 18, 4
INTEREST_COLOUR, FACE_COLOUR = (40, 220, 90), (235, 60, 200)
_TINT = 0.3


class Tile(NamedTuple):
    """One place on a sheet: uint8 image [H, W, 3], masks [H, W, 1] (255 inside) and a line."""

    image: np.ndarray
    interest: np.ndarray
    face: np.ndarray | None
    caption: str


def draw_over(
    image: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "H W 1"], colour: Sequence[int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Tints a mask's inside and draws its outline, two pixels wide.

    Args:
      image: uint8 [H, W, 3].
      mask: uint8 [H, W, 1], inside from 128 on.
      colour: of tint and outline, 0 to 255.

    Returns:
      uint8 [H, W, 3].
    """
    inside = mask[..., 0] >= 128
    result = image.astype(np.float32)
    result[inside] += _TINT * (np.asarray(colour, np.float32) - result[inside])
    result[outline(inside)] = colour
    return np.round(result).astype(np.uint8)


def outline(inside: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels [H, W] inside a region whose neighbour within two pixels is outside it."""
    core = np.pad(inside, 2, mode="edge")
    height, width = inside.shape
    kept = inside.copy()
    for dy, dx in ((0, 2), (4, 2), (2, 0), (2, 4), (1, 2), (3, 2), (2, 1), (2, 3)):
        kept &= core[dy : dy + height, dx : dx + width]
    return inside & ~kept


def sheets(tiles: Iterable[Tile]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Sheets of 5 x 4 tiles, uint8 [H, W, 3]; the last one has as many rows as it needs."""
    tiles = iter(tiles)
    while own := list(itertools.islice(tiles, COLUMNS * ROWS)):
        yield _sheet(own)


def _sheet(tiles: Sequence[Tile]) -> np.ndarray:
    rows = -(-len(tiles) // COLUMNS)
    step_x, step_y = TILE + GAP, TILE + CAPTION + GAP
    sheet = Image.new("RGB", (COLUMNS * step_x + GAP, rows * step_y + GAP), (24, 24, 24))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, tile in enumerate(tiles):
        x, y = GAP + i % COLUMNS * step_x, GAP + i // COLUMNS * step_y
        small = _small(tile)
        sheet.paste(small, (x + (TILE - small.width) // 2, y + (TILE - small.height) // 2))
        draw.text((x, y + TILE + 1), _shortened(tile.caption, font), (230, 230, 230), font)
    return np.array(sheet)


def _small(tile: Tile) -> Image.Image:
    height, width = tile.image.shape[:2]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.array(Image.fromarray(tile.image).resize(size, Image.Resampling.BICUBIC))
    for mask, colour in ((tile.interest, INTEREST_COLOUR), (tile.face, FACE_COLOUR)):
        if mask is not None:
            scaled = Image.fromarray(mask[..., 0]).resize(size, Image.Resampling.BOX)
            image = draw_over(image, np.array(scaled)[..., None], colour)
    return Image.fromarray(image)


def _shortened(text: str, font) -> str:
    """The text, its beginning cut off where it is wider than a tile."""
    shown = text = one_line(text)
    while font.getlength(shown) > TILE and len(shown) > 2:
        text = text[1:]
        shown = "…" + text
    return shown
