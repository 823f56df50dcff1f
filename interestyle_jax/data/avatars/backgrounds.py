"""What lies behind the head: a plain colour in the clean image, busy kinds in the other."""

import colorsys
import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from interestyle_jax.data.avatars.raster import document, rasterise
from interestyle_jax.data.avatars.variation import Draws, hsv_to_rgb, rgb_to_hex

_CELLS = 64
# Of plain backgrounds; the hue is any.
SATURATION, VALUE, SLOPE = (0.08, 0.5), (0.55, 0.98), (0.0, 0.14)


@dataclasses.dataclass(frozen=True)
class Plain:
    """One soft colour, HSV in [0, 1], lighter by `slope` at the top and darker at the bottom."""

    hsv: tuple[float, float, float]
    slope: float


def draw_plain(draws: Draws) -> Plain:
    """The background of a clean avatar."""
    hsv = draws.uniform(0.0, 1.0), draws.uniform(*SATURATION), draws.uniform(*VALUE)
    return Plain(hsv, draws.uniform(*SLOPE))


def plain(background: Plain, size: int) -> Float[np.ndarray, "S S 3"]:
    """Float RGB [size, size, 3] in [0, 1]."""
    ramp = 1 + background.slope * (1 - 2 * (np.arange(size) + 0.5) / size)
    colour = np.array(colorsys.hsv_to_rgb(*background.hsv))
    return np.clip(np.broadcast_to(ramp[:, None, None] * colour, (size, size, 3)), 0.0, 1.0)


def busy(draws: Draws, size: int) -> tuple[str, Float[np.ndarray, "S S 3"]]:
    """Draws one of KINDS: its name and float RGB [size, size, 3] in [0, 1]."""
    kind = draws.choice(KINDS)
    return kind, draw_kind(draws, kind, size)


def draw_kind(draws: Draws, kind: str, size: int) -> Float[np.ndarray, "S S 3"]:
    """Draws a background of a kind: float RGB [size, size, 3] in [0, 1]."""
    return np.clip(_DRAWERS[kind](draws, size), 0.0, 1.0)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    x = (np.arange(size) + 0.5) / size
    return np.broadcast_to(x[None, :], (size, size)), np.broadcast_to(x[:, None], (size, size))


def _colour(draws: Draws, saturation: tuple[float, float], value: tuple[float, float]):
    return hsv_to_rgb(draws.uniform(0.0, 1.0), draws.uniform(*saturation), draws.uniform(*value))


def _enlarge(cells: np.ndarray, size: int) -> np.ndarray:
    """Smoothstep interpolation of [n, n, C] to [size, size, C]."""
    n = cells.shape[0]
    position = (np.arange(size) + 0.5) / size * (n - 1)
    low = np.minimum(position.astype(np.int64), n - 2)
    t = position - low
    t = t * t * (3 - 2 * t)
    rows = cells[low] * (1 - t)[:, None, None] + cells[low + 1] * t[:, None, None]
    return rows[:, low] * (1 - t)[None, :, None] + rows[:, low + 1] * t[None, :, None]


def _fractal(draws: Draws, size: int, channels: int, persistence: float) -> np.ndarray:
    """Sum of octaves of smooth noise, stretched to [0, 1]: [size, size, channels]."""
    total, weight = np.zeros((size, size, channels)), 1.0
    cells = 3
    while cells <= _CELLS:
        total += weight * _enlarge(draws.array(cells, cells, channels), size)
        cells, weight = 2 * cells - 1, weight * persistence
    low, high = total.min(axis=(0, 1)), total.max(axis=(0, 1))
    return (total - low) / (high - low)


def _gradient(draws: Draws, size: int) -> np.ndarray:
    """Three strong colours along a line or around a point."""
    x, y = _grid(size)
    if draws.chance(0.5):
        angle = draws.uniform(0, 2 * math.pi)
        t = 0.5 + 0.7 * ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle))
    else:
        cx, cy = draws.uniform(0.0, 1.0), draws.uniform(0.0, 1.0)
        t = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / 1.1
    t = np.clip(t, 0, 1)[..., None]
    a, b, c = (_colour(draws, (0.4, 0.95), (0.3, 1.0)) for _ in range(3))
    return np.where(t < 0.5, a + (b - a) * 2 * t, b + (c - b) * (2 * t - 1))


def _texture(draws: Draws, size: int) -> np.ndarray:
    """Stripes, checks, dots or waves in two or three colours."""
    x, y = _grid(size)
    angle, pitch = draws.uniform(0, math.pi), draws.uniform(0.08, 0.22)
    u = (x * math.cos(angle) + y * math.sin(angle)) / pitch
    v = (-x * math.sin(angle) + y * math.cos(angle)) / pitch
    a, b, c = (_colour(draws, (0.2, 0.9), (0.3, 1.0)) for _ in range(3))
    pattern = draws.integer(0, 3)
    if pattern == 0:
        band = (u % 3).astype(np.int64)[..., None]
        return np.choose(band, [a, b, c])
    if pattern == 1:
        inside = (np.floor(u) + np.floor(v)) % 2 == 0
    elif pattern == 2:
        inside = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < draws.uniform(0.05, 0.14)
    else:
        # A parabola per half period stands for the sine, which rounds differently by machine.
        phase = v % 2
        wave = np.where(phase < 1, 4 * phase * (1 - phase), 4 * (phase - 1) * (phase - 2))
        inside = (u + 0.4 * wave) % 1 < 0.5
    return np.where(inside[..., None], a, b)


def _photo(draws: Draws, size: int) -> np.ndarray:
    """Fractal noise in natural colours, with grain: like a wall, bark, cloud or crowd."""
    field = _fractal(draws, size, 3, draws.uniform(0.45, 0.85))
    a, b = (_colour(draws, (0.1, 0.6), (0.1, 0.5)), _colour(draws, (0.1, 0.7), (0.5, 1.0)))
    mixed = a + (b - a) * field[..., :1]
    mixed = mixed + draws.uniform(0.1, 0.5) * (field - 0.5)
    return mixed + draws.uniform(0.0, 0.16) * (draws.array(size, size, 1) - 0.5)


def _bokeh(draws: Draws, size: int) -> np.ndarray:
    """Out-of-focus lights in the dark."""
    top, bottom = _colour(draws, (0.3, 0.9), (0.05, 0.35)), _colour(draws, (0.3, 0.9), (0.1, 0.5))
    x, y = _grid(size)
    image = top + (bottom - top) * y[..., None]
    for _ in range(draws.integer(14, 28)):
        cx, cy, radius = draws.uniform(0.0, 1.0), draws.uniform(0.0, 1.0), draws.uniform(0.03, 0.11)
        colour = _colour(draws, (0.1, 0.8), (0.7, 1.0))
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / radius
        light = np.clip((1.0 - distance) * 6, 0, 1) * (0.6 + 0.4 * np.minimum(distance, 1))
        share = draws.uniform(0.25, 0.8) * light[..., None]
        image = image + (colour - image) * share
    return image


def _svg_image(body: str, size: int) -> np.ndarray:
    drawn = rasterise(document(f'<g transform="scale({size / 100:.5f})">{body}</g>', size))
    return drawn[..., :3] / 255.0


def _hex(draws: Draws, saturation: tuple[float, float], value: tuple[float, float]) -> str:
    return rgb_to_hex(_colour(draws, saturation, value))


def _clutter(draws: Draws, size: int) -> np.ndarray:
    """Many overlapping shapes."""
    parts = [f'<rect width="100" height="100" fill="{_hex(draws, (0.2, 0.8), (0.2, 0.9))}"/>']
    for _ in range(draws.integer(22, 40)):
        x, y = draws.uniform(-5, 105), draws.uniform(-5, 105)
        s, turn = draws.uniform(4, 18), draws.uniform(0, 360)
        colour = _hex(draws, (0.2, 1.0), (0.15, 1.0))
        shape = draws.integer(0, 3)
        if shape == 0:
            drawn = f'<circle r="{s * 0.7:.2f}" fill="{colour}"/>'
        elif shape == 1:
            w, h = s * draws.uniform(0.6, 2.0), s
            drawn = (
                f'<rect x="{-w / 2:.2f}" y="{-h / 2:.2f}" width="{w:.2f}" height="{h:.2f}" '
                f'rx="1.5" fill="{colour}"/>'
            )
        elif shape == 2:
            drawn = f'<path d="M0 {-s:.2f} L{s:.2f} {s:.2f} L{-s:.2f} {s:.2f} Z" fill="{colour}"/>'
        else:
            drawn = (
                f'<path d="M{-s:.2f} 0 Q0 {-2 * s:.2f} {s:.2f} 0 T{3 * s:.2f} 0" fill="none" '
                f'stroke="{colour}" stroke-width="{s * 0.25:.2f}"/>'
            )
        parts.append(f'<g transform="translate({x:.2f} {y:.2f}) rotate({turn:.1f})">{drawn}</g>')
    return _svg_image("".join(parts), size)


def _shelves(draws: Draws, size: int) -> np.ndarray:
    """Shelves full of books and boxes."""
    wood = hsv_to_rgb(draws.uniform(0.04, 0.12), draws.uniform(0.3, 0.7), draws.uniform(0.3, 0.75))
    parts = [f'<rect width="100" height="100" fill="{rgb_to_hex(wood * 0.55)}"/>']
    rows = draws.integer(3, 5)
    height = 100 / rows
    for row in range(rows):
        floor = (row + 1) * height - 3
        x = draws.uniform(-4, 0)
        while x < 100:
            width = draws.uniform(3, 9)
            tall = (height - 4) * draws.uniform(0.55, 0.97)
            if draws.chance(0.9):
                colour = _hex(draws, (0.2, 0.9), (0.25, 0.95))
                lean = draws.uniform(-6, 6) if draws.chance(0.2) else 0
                parts.append(
                    f'<g transform="rotate({lean:.1f} {x:.2f} {floor:.2f})">'
                    f'<rect x="{x:.2f}" y="{floor - tall:.2f}" width="{width * 0.94:.2f}" '
                    f'height="{tall:.2f}" fill="{colour}"/>'
                    f'<rect x="{x:.2f}" y="{floor - tall * 0.8:.2f}" width="{width * 0.94:.2f}" '
                    f'height="{tall * 0.09:.2f}" fill="#f4ead2"/></g>'
                )
            x += width
        parts.append(
            f'<rect x="0" y="{floor:.2f}" width="100" height="3" fill="{rgb_to_hex(wood)}"/>'
        )
    return _svg_image("".join(parts), size)


def _scenery(draws: Draws, size: int) -> np.ndarray:
    """Sky, sun, hills and houses."""
    sky = _hex(draws, (0.2, 0.6), (0.6, 1.0))
    parts = [
        f'<rect width="100" height="100" fill="{sky}"/>',
        f'<circle cx="{draws.uniform(5, 95):.1f}" cy="{draws.uniform(5, 35):.1f}" '
        f'r="{draws.uniform(5, 11):.1f}" fill="{_hex(draws, (0.1, 0.7), (0.9, 1.0))}"/>',
    ]
    for level in range(3):
        y = 35 + 18 * level
        x = draws.uniform(-10, 0)
        while x < 105:
            w, h = draws.uniform(8, 20), draws.uniform(8, 32)
            colour = _hex(draws, (0.15, 0.8), (0.25, 0.85))
            parts.append(
                f'<rect x="{x:.2f}" y="{y - h:.2f}" width="{w:.2f}" height="90" fill="{colour}"/>'
            )
            glass = _hex(draws, (0.1, 0.5), (0.8, 1.0))
            for window in range(4):
                wx, wy = x + w * (0.18 + 0.42 * (window % 2)), y - h + 3 + 6 * (window // 2)
                parts.append(
                    f'<rect x="{wx:.2f}" y="{wy:.2f}" width="{w * 0.22:.2f}" height="3" '
                    f'fill="{glass}"/>'
                )
            x += w + draws.uniform(0, 6)
        crest = draws.uniform(-12, 12)
        green = rgb_to_hex(
            hsv_to_rgb(draws.uniform(0.2, 0.45), draws.uniform(0.3, 0.8), draws.uniform(0.25, 0.7))
        )
        parts.append(
            f'<path d="M0 {y + 4} Q25 {y + crest:.1f} 50 {y + 2} T100 {y + 3} V100 H0 Z" '
            f'fill="{green}"/>'
        )
    return _svg_image("".join(parts), size)


_DRAWERS: dict[str, Callable[[Draws, int], np.ndarray]] = {
    "gradient": _gradient,
    "texture": _texture,
    "photo": _photo,
    "bokeh": _bokeh,
    "clutter": _clutter,
    "shelves": _shelves,
    "scenery": _scenery,
}
KINDS = tuple(_DRAWERS)
