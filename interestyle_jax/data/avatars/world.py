"""The avatar world: `sample` draws one example with all its masks and labels from a seed."""

import numpy as np

from interestyle_jax.data.avatars import backgrounds
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.data.avatars.obstacles import draw_obstacle
from interestyle_jax.data.avatars.raster import shrink, supersampling, to_uint8
from interestyle_jax.data.avatars.render import (
    FACE_PARTS,
    HAIR_PARTS,
    PARTS,
    STYLES,
    Drawing,
    draw_avatar,
    face_box,
    image_of,
    parts_of,
)
from interestyle_jax.data.avatars.variation import Draws, apply_light, draw_light
from interestyle_jax.errors import InputError

SPLITS = ("train", "validation", "test")

_STYLE_KEYS = {"toon-head": 0, "personas": 1}
# Streams of random draws of one sample; the clean image depends on the first alone.
_AVATAR, _BACKGROUND, _OBSTACLE = 0, 1, 2


def sample(
    index: int, *, size: int = 64, split: str = "train", seed: int = 0, style: str = "toon-head"
) -> dict:
    """Draws one example of the avatar world; the same arguments give the same example everywhere.

    Returns, with images uint8 [size, size, 3] and masks uint8 [size, size, 1] of 0 or 255:
      image: the avatar before a busy background, partly behind an obstacle
      clean: the same avatar (position, light, colours) before a plain colour, nothing in front
      interest_mask, face_mask: hair and face, and face alone, where no obstacle covers them
      interest_mask_full, face_mask_full: the same without the obstacle
      labels: attributes of the avatar, strings (parts and '#rrggbb' colours) and floats (position)
      obstacle, background: their kinds; id: the index
      factors: float32 [F], what decides the clean image (`Factors`)
    A mask pixel is 255 where at least half of its area belongs to the region. The face is the
    head with its features and beard, without neck; glasses belong to it.

    Raises InputError when the split, the style or the size is unknown.
    """
    drawing, clean, rgba, factors = _draw_clean(index, size, split, seed, style)
    large = rgba.shape[0]
    key = (seed, SPLITS.index(split), index, _STYLE_KEYS[style])
    parts = parts_of(drawing, large)
    face = np.isin(parts, [PARTS.index(name) for name in FACE_PARTS])
    interest = face | np.isin(parts, [PARTS.index(name) for name in HAIR_PARTS])
    background, behind = backgrounds.busy(Draws(*key, _BACKGROUND), large)
    obstacle, front = draw_obstacle((*key, _OBSTACLE), face_box(drawing), face)
    image = _over(front / 255.0, _over(rgba, behind))
    open_to_view = front[..., 3] < 128
    return {
        "image": to_uint8(shrink(image, size)),
        "clean": to_uint8(shrink(clean, size)),
        "interest_mask": _mask(interest & open_to_view, size),
        "face_mask": _mask(face & open_to_view, size),
        "interest_mask_full": _mask(interest, size),
        "face_mask_full": _mask(face, size),
        "labels": drawing.labels,
        "obstacle": obstacle,
        "background": background,
        "id": index,
        "factors": factors,
    }


def clean_sample(
    index: int, *, size: int = 64, split: str = "train", seed: int = 0, style: str = "toon-head"
) -> dict:
    """Draws only the clean image of `sample`: {'clean', 'labels', 'id', 'factors'}.

    `clean` is uint8 [size, size, 3], `factors` float32 [F] what decides it (`Factors`).

    Raises InputError when the split, the style or the size is unknown.
    """
    drawing, clean, _, factors = _draw_clean(index, size, split, seed, style)
    image = to_uint8(shrink(clean, size))
    return {"clean": image, "labels": drawing.labels, "id": index, "factors": factors}


def _draw_clean(
    index: int, size: int, split: str, seed: int, style: str
) -> tuple[Drawing, np.ndarray, np.ndarray, np.ndarray]:
    """-> drawing, clean float [S, S, 3], the lit avatar float RGBA [S, S, 4], factors [F].

    S is supersampled.
    """
    if split not in SPLITS:
        raise InputError(f"split: '{split}' is none of {', '.join(SPLITS)}")
    if style not in STYLES:
        raise InputError(f"style: '{style}' is none of {', '.join(STYLES)}")
    if not 16 <= size <= 2048:
        raise InputError(f"size: {size} is outside 16 ... 2048 pixels")
    draws = Draws(seed, SPLITS.index(split), index, _STYLE_KEYS[style], _AVATAR)
    drawing = draw_avatar(draws, style, f"{style}/{seed}/{split}/{index}")
    light = draw_light(draws)
    large = size * supersampling(size)
    rgba = image_of(drawing, large) / 255.0
    rgba[..., :3] = apply_light(rgba[..., :3], light)
    background = backgrounds.draw_plain(draws)
    factors = factors_of_style(style).of(drawing, light, background)
    return drawing, _over(rgba, backgrounds.plain(background, large)), rgba, factors


def _over(rgba: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Lays float RGBA [S, S, 4] over RGB [S, S, 3]."""
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + behind * (1 - alpha)


def _mask(member: np.ndarray, size: int) -> np.ndarray:
    area = shrink(member[..., None].astype(np.float64), size)
    return np.where(area >= 0.5, 255, 0).astype(np.uint8)
