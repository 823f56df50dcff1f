"""The avatar world: `sample` draws one example with all its masks and labels from a seed."""

import colorsys

import numpy as np

from interestyle_jax.data.avatars.render import (
    FACE_PARTS,
    HAIR_PARTS,
    PARTS,
    STYLES,
    Drawing,
    draw_avatar,
    parts_of,
    picture_of,
    supersampling,
)
from interestyle_jax.data.avatars.variation import Draws, Light, apply_light, draw_light
from interestyle_jax.errors import InputError

SPLITS = ("train", "validation", "test")

_STYLE_KEYS = {"toon-head": 0, "personas": 1}
# Streams of random draws of one sample; the clean picture depends on the first alone.
_AVATAR, _SCENE = 0, 1


def clean_sample(
    index: int, *, size: int = 64, split: str = "train", seed: int = 0, style: str = "toon-head"
) -> dict:
    """Draws one clean avatar: {'clean': uint8 [size, size, 3], 'labels': dict, 'id': int}.

    Raises InputError when the split, the style or the size is unknown.
    """
    drawing, _, clean, _ = _draw_clean(index, size, split, seed, style)
    return {"clean": _to_uint8(_shrink(clean, size)), "labels": drawing.labels, "id": index}


def _check(size: int, split: str, style: str) -> None:
    if split not in SPLITS:
        raise InputError(f"split: '{split}' is none of {', '.join(SPLITS)}")
    if style not in STYLES:
        raise InputError(f"style: '{style}' is none of {', '.join(STYLES)}")
    if not 16 <= size <= 2048:
        raise InputError(f"size: {size} is outside 16 ... 2048 pixels")


def _draw_clean(
    index: int, size: int, split: str, seed: int, style: str
) -> tuple[Drawing, Light, np.ndarray, np.ndarray]:
    """-> drawing, light, clean float [S, S, 3] and lit RGBA float [S, S, 4], S supersampled."""
    _check(size, split, style)
    draws = Draws(seed, SPLITS.index(split), index, _STYLE_KEYS[style], _AVATAR)
    drawing = draw_avatar(draws, style, f"{style}/{seed}/{split}/{index}")
    light = draw_light(draws)
    large = size * supersampling(size)
    rgba = picture_of(drawing, large) / 255.0
    rgba[..., :3] = apply_light(rgba[..., :3], light)
    background = _plain_background(draws, large)
    alpha = rgba[..., 3:]
    return drawing, light, rgba[..., :3] * alpha + background * (1 - alpha), rgba


def _plain_background(draws: Draws, size: int) -> np.ndarray:
    """One soft colour, lighter towards the top: float RGB [size, size, 3]."""
    colour = np.array(
        colorsys.hsv_to_rgb(draws.uniform(), draws.uniform(0.08, 0.5), draws.uniform(0.55, 0.98))
    )
    slope = draws.uniform(0.0, 0.14)
    ramp = 1 + slope * (1 - 2 * (np.arange(size) + 0.5) / size)
    return np.clip(np.broadcast_to(ramp[:, None, None] * colour, (size, size, 3)), 0.0, 1.0)


def _shrink(picture: np.ndarray, size: int) -> np.ndarray:
    """Area average of [S, S, C] to [size, size, C]."""
    factor = picture.shape[0] // size
    return picture.reshape(size, factor, size, factor, -1).mean(axis=(1, 3))


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _area(parts: np.ndarray, names: tuple[str, ...], size: int) -> np.ndarray:
    """Share of each pixel that belongs to one of the parts: float [size, size, 1]."""
    member = np.isin(parts, [PARTS.index(name) for name in names])
    return _shrink(member[..., None].astype(np.float64), size)


def full_areas(drawing: Drawing, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts of the drawing at `size`: (face + hair, face), float [size, size, 1] each."""
    parts = parts_of(drawing, size * supersampling(size))
    return _area(parts, FACE_PARTS + HAIR_PARTS, size), _area(parts, FACE_PARTS, size)
