"""Things in front of the face: six kinds, each drawn from a seed.

Every kind is SVG in face units: the origin is the middle of the face, 1 is half its height, y
points down. Letters are strokes of our own, so no font is needed.
"""

import colorsys
import dataclasses
import math

import numpy as np
from jaxtyping import Bool, UInt8

from interestyle_jax.data.avatars.glyphs import GLYPHS, WORDS
from interestyle_jax.data.avatars.raster import document, rasterise
from interestyle_jax.data.avatars.variation import Draws, hex_to_rgb, rgb_to_hex

KINDS = ("none", "hand", "microphone", "lettering", "cup", "stripes", "leaves")
WEIGHTS = (0.06, 0.19, 0.15, 0.15, 0.15, 0.14, 0.16)
# Share of the face that an obstacle should cover, and how many drawings are tried for it.
COVERAGE = (0.05, 0.30)
TRIES = 4

_SKIN = ("#f1c3a5", "#e0a37e", "#c68e7a", "#a36b4f", "#7d4d38", "#5c3829")


@dataclasses.dataclass(frozen=True)
class FaceBox:
    """Middle of the face and half its height, in parts of the image; `mouth` in face units."""

    x: float
    y: float
    radius: float
    mouth: float


def draw_obstacle(
    key: tuple[int, ...], face: FaceBox, face_pixels: Bool[np.ndarray, "S S"]
) -> tuple[str, UInt8[np.ndarray, "S S 4"]]:
    """Chooses and draws an obstacle that covers part of the face.

    `key` seeds the draws, `face_pixels` is bool [S, S]. Returns the kind and uint8 RGBA [S, S, 4].
    A kind is drawn up to TRIES times until it covers COVERAGE of the face; else the drawing
    nearest to it is returned.
    """
    size = face_pixels.shape[0]
    kind, level = KINDS[-1], Draws(*key, 0).uniform(0.0, 1.0)
    for name, weight in zip(KINDS, WEIGHTS, strict=True):
        level -= weight
        if level < 0:
            kind = name
            break
    if kind == "none":
        return kind, np.zeros((size, size, 4), np.uint8)
    best, best_distance = None, math.inf
    for attempt in range(1, TRIES + 1):
        drawn = draw_kind(Draws(*key, attempt), kind, face, size)
        covered = int(np.count_nonzero((drawn[..., 3] >= 128) & face_pixels))
        share = covered / max(int(np.count_nonzero(face_pixels)), 1)
        distance = max(COVERAGE[0] - share, share - COVERAGE[1], 0.0)
        if distance < best_distance:
            best, best_distance = drawn, distance
        if distance == 0:
            break
    return kind, best


def draw_kind(draws: Draws, kind: str, face: FaceBox, size: int) -> UInt8[np.ndarray, "S S 4"]:
    """Draws one obstacle of a kind: uint8 RGBA [size, size, 4]."""
    body = _DRAWERS[kind](draws, face)
    place = f"translate({size * face.x:.3f} {size * face.y:.3f}) scale({size * face.radius:.4f})"
    return rasterise(document(f'<g transform="{place}">{body}</g>', size))


def _shade(colour: str, factor: float) -> str:
    return rgb_to_hex([c * factor for c in hex_to_rgb(colour)])


def _tint(colour: str, share: float) -> str:
    return rgb_to_hex([c + (1 - c) * share for c in hex_to_rgb(colour)])


def _vivid(draws: Draws) -> str:
    hue, saturation, value = (
        draws.uniform(0.0, 1.0),
        draws.uniform(0.45, 0.95),
        draws.uniform(0.4, 0.98),
    )
    return rgb_to_hex(colorsys.hsv_to_rgb(hue, saturation, value))


def _placed(body: str, x: float, y: float, angle: float, scale: float, mirror: bool = False) -> str:
    sign = -1 if mirror else 1
    return (
        f'<g transform="translate({x:.4f} {y:.4f}) rotate({angle:.3f}) '
        f'scale({sign * scale:.4f} {scale:.4f})">{body}</g>'
    )


def _line(x0: float, y0: float, x1: float, y1: float, width: float, colour: str) -> str:
    return (
        f'<line x1="{x0:.4f}" y1="{y0:.4f}" x2="{x1:.4f}" y2="{y1:.4f}" stroke="{colour}" '
        f'stroke-width="{width:.4f}" stroke-linecap="round"/>'
    )


def _hand(draws: Draws, face: FaceBox) -> str:
    """An open or partly closed hand that reaches in from below or from a side."""
    skin = draws.choice(_SKIN)
    edge, nail = _shade(skin, 0.62), _tint(skin, 0.45)
    sleeve = _vivid(draws)
    parts = [
        _line(0, 0.75, 0, 3.5, 0.50, edge),
        _line(0, 0.75, 0, 3.5, 0.44, skin),
        f'<rect x="-0.36" y="1.15" width="0.72" height="3" rx="0.1" fill="{_shade(sleeve, 0.6)}"/>',
        f'<rect x="-0.32" y="1.19" width="0.64" height="3" rx="0.07" fill="{sleeve}"/>',
    ]
    palm = (
        "M-0.36 0.12 C-0.40 0.45 -0.34 0.75 -0.22 0.92 L0.22 0.92 C0.36 0.75 0.42 0.40 0.36 0.08 Z"
    )
    folded = draws.integer(0, 3) if draws.chance(0.35) else -1
    spread = draws.uniform(4.0, 11.0)
    thumb_angle = math.radians(draws.uniform(-62.0, -30.0))
    tx, ty = -0.28 + 0.58 * math.sin(thumb_angle), 0.55 - 0.58 * math.cos(thumb_angle)
    parts += [_line(-0.24, 0.58, tx, ty, 0.27, edge), _line(-0.24, 0.58, tx, ty, 0.21, skin)]
    for finger, length in enumerate((0.56, 0.70, 0.66, 0.50)):
        reach = 0.16 if finger >= folded >= 0 else length * draws.uniform(0.92, 1.08)
        angle = math.radians((finger - 1.5) * spread)
        x0 = -0.27 + 0.185 * finger
        x1, y1 = x0 + reach * math.sin(angle), 0.10 - reach * math.cos(angle)
        parts += [_line(x0, 0.2, x1, y1, 0.215, edge), _line(x0, 0.2, x1, y1, 0.165, skin)]
        nx, ny = x1 + 0.03 * math.sin(angle), y1 - 0.03 * math.cos(angle)
        turn = math.degrees(angle)
        parts.append(
            f'<ellipse cx="0" cy="0" rx="0.045" ry="0.06" fill="{nail}" '
            f'transform="translate({nx:.4f} {ny:.4f}) rotate({turn:.2f})"/>'
        )
    parts.append(f'<path d="{palm}" fill="{skin}" stroke="{edge}" stroke-width="0.03"/>')
    parts.append(f'<path d="{palm}" fill="{skin}" transform="translate(0 0.02) scale(0.96)"/>')
    parts.append(
        f'<path d="M-0.24 0.36 Q0 0.28 0.26 0.38" stroke="{edge}" stroke-width="0.025" '
        f'fill="none" opacity="0.6"/>'
    )
    side = draws.choice((-1, 1))
    angle = -side * draws.uniform(5.0, 65.0)
    x = side * draws.uniform(0.15, 0.75)
    y = draws.uniform(0.15, 0.75)
    return _placed("".join(parts), x, y, angle, draws.uniform(0.85, 1.2), mirror=side < 0)


def _microphone(draws: Draws, face: FaceBox) -> str:
    """A microphone held up to the mouth: a meshed head on a tapered handle."""
    dark = rgb_to_hex([draws.uniform(0.08, 0.28)] * 3)
    metal = _vivid(draws) if draws.chance(0.4) else rgb_to_hex([draws.uniform(0.45, 0.8)] * 3)
    parts = [
        f'<path d="M-0.17 0.22 L-0.10 2.6 L0.10 2.6 L0.17 0.22 Z" fill="{dark}"/>',
        f'<path d="M-0.13 0.25 L-0.08 2.6 L-0.03 2.6 L-0.06 0.25 Z" fill="{_tint(dark, 0.28)}"/>',
        f'<circle r="0.37" fill="{_shade(metal, 0.45)}"/>',
        f'<circle r="0.335" fill="{metal}"/>',
    ]
    for step in (-0.22, -0.11, 0.0, 0.11, 0.22):
        half = math.sqrt(0.33**2 - step**2)
        mesh = _shade(metal, 0.6)
        parts.append(_line(-half, step, half, step, 0.022, mesh))
        parts.append(_line(step, -half, step, half, 0.022, mesh))
    parts += [
        f'<ellipse cx="-0.12" cy="-0.14" rx="0.10" ry="0.07" fill="{_tint(metal, 0.75)}"/>',
        f'<rect x="-0.34" y="0.06" width="0.68" height="0.11" rx="0.05" '
        f'fill="{_shade(metal, 0.4)}"/>',
        f'<rect x="-0.21" y="0.30" width="0.42" height="0.13" rx="0.04" fill="{_vivid(draws)}"/>',
    ]
    x = draws.uniform(-0.35, 0.35)
    y = face.mouth + draws.uniform(-0.12, 0.22)
    return _placed("".join(parts), x, y, draws.uniform(-40.0, 40.0), draws.uniform(0.95, 1.35))


def _lettering(draws: Draws, face: FaceBox) -> str:
    """A word across the image, outlined, sometimes on a banner."""
    word = draws.choice(WORDS)
    fill, rim = _vivid(draws), draws.choice(("#ffffff", "#111111"))
    if draws.chance(0.35):
        fill, rim = rim, fill
    width = len(word) * 5.4 - 1.4
    points = []
    for position, letter in enumerate(word):
        for stroke in GLYPHS[letter]:
            pairs = (f"{x + 5.4 * position - width / 2:.2f} {y - 3:.2f}" for x, y in stroke)
            points.append("M" + " L".join(pairs))
    outline = " ".join(points)
    weight = draws.uniform(0.9, 1.35)
    form = 'fill="none" stroke-linejoin="round" stroke-linecap="round"'
    parts = []
    if draws.chance(0.25):
        parts.append(
            f'<rect x="{-width / 2 - 1.6:.2f}" y="-4.6" width="{width + 3.2:.2f}" height="9.2" '
            f'rx="1" fill="{_vivid(draws)}"/>'
        )
    parts += [
        f'<path d="{outline}" {form} stroke="{rim}" stroke-width="{weight + 0.9:.3f}"/>',
        f'<path d="{outline}" {form} stroke="{fill}" stroke-width="{weight:.3f}"/>',
    ]
    scale = draws.uniform(2.1, 3.0) / max(width, 18.0)
    x, y = draws.uniform(-0.4, 0.4), draws.uniform(-0.55, 0.85)
    return _placed("".join(parts), x, y, draws.uniform(-28.0, 28.0), scale)


def _cup(draws: Draws, face: FaceBox) -> str:
    """A mug with a handle, or a paper cup with a lid and a sleeve, before the mouth."""
    colour, mark = _vivid(draws), _vivid(draws)
    if draws.chance(0.3):
        colour = rgb_to_hex([draws.uniform(0.88, 0.98)] * 3)
    edge = _shade(colour, 0.6)
    if draws.chance(0.5):
        parts = [
            f'<path d="M0.40 -0.22 C0.95 -0.30 0.95 0.38 0.38 0.28" fill="none" '
            f'stroke="{edge}" stroke-width="0.19"/>',
            f'<path d="M0.40 -0.22 C0.95 -0.30 0.95 0.38 0.38 0.28" fill="none" '
            f'stroke="{colour}" stroke-width="0.13"/>',
            f'<path d="M-0.47 -0.45 L-0.42 0.42 Q-0.40 0.55 -0.26 0.55 L0.26 0.55 '
            f'Q0.40 0.55 0.42 0.42 L0.47 -0.45 Z" fill="{colour}" stroke="{edge}" '
            f'stroke-width="0.035"/>',
            f'<path d="M0.20 -0.40 L0.19 0.53 L0.27 0.53 Q0.39 0.53 0.40 0.40 L0.44 -0.40 Z" '
            f'fill="{_shade(colour, 0.84)}"/>',
            f'<ellipse cy="-0.45" rx="0.47" ry="0.11" fill="{_tint(colour, 0.35)}" '
            f'stroke="{edge}" stroke-width="0.03"/>',
            '<ellipse cy="-0.43" rx="0.38" ry="0.07" fill="#4a2a17"/>',
            f'<circle cx="-0.10" cy="0.12" r="0.17" fill="{mark}"/>',
        ]
    else:
        lid = draws.choice(("#ffffff", "#2b2b2b", "#efe6d8"))
        parts = [
            f'<path d="M-0.40 -0.48 L-0.28 0.85 L0.28 0.85 L0.40 -0.48 Z" fill="{colour}" '
            f'stroke="{edge}" stroke-width="0.03"/>',
            f'<path d="M-0.375 -0.15 L-0.325 0.42 L0.325 0.42 L0.375 -0.15 Z" fill="{mark}"/>',
            '<path d="M0.18 -0.48 L0.12 0.85 L0.28 0.85 L0.40 -0.48 Z" fill="#000000" '
            'fill-opacity="0.12"/>',
            f'<rect x="-0.46" y="-0.60" width="0.92" height="0.15" rx="0.06" fill="{lid}" '
            f'stroke="{_shade(lid, 0.7)}" stroke-width="0.025"/>',
            f'<rect x="-0.38" y="-0.72" width="0.76" height="0.14" rx="0.05" fill="{lid}" '
            f'stroke="{_shade(lid, 0.7)}" stroke-width="0.025"/>',
        ]
    x, y = draws.uniform(-0.35, 0.35), face.mouth + draws.uniform(0.15, 0.45)
    mirror = draws.chance(0.5)
    return _placed(
        "".join(parts), x, y, draws.uniform(-18.0, 18.0), draws.uniform(0.85, 1.2), mirror
    )


def _stripes(draws: Draws, face: FaceBox) -> str:
    """Bars of a fence or a grid over the whole image."""
    colour = _vivid(draws)
    light = _tint(colour, 0.4)
    pitch = draws.uniform(0.45, 0.95)
    grid = draws.chance(0.45)
    width = pitch * (draws.uniform(0.09, 0.16) if grid else draws.uniform(0.15, 0.30))
    start = draws.uniform(0.0, pitch)
    parts = []
    for turn in (0.0, 90.0) if grid else (0.0,):
        bars = []
        for step in range(-9, 10):
            x = start + step * pitch
            bars.append(
                f'<rect x="{x - width / 2:.4f}" y="-6" width="{width:.4f}" height="12" '
                f'fill="{colour}"/><rect x="{x - width / 2:.4f}" y="-6" width="{width * 0.3:.4f}" '
                f'height="12" fill="{light}"/>'
            )
        parts.append(_placed("".join(bars), 0, 0, turn, 1.0))
    return _placed("".join(parts), 0, 0, draws.uniform(-90.0, 90.0), 1.0)


def _leaves(draws: Draws, face: FaceBox) -> str:
    """A branch or two with leaves that reach in from the rim of the image."""
    parts = []
    for _ in range(draws.integer(2, 3)):
        hue = draws.uniform(0.20, 0.42) if draws.chance(0.75) else draws.uniform(0.0, 0.12)
        saturation, value = draws.uniform(0.45, 0.85), draws.uniform(0.35, 0.75)
        bow = draws.uniform(-0.25, 0.25)
        body = [
            f'<path d="M0 2.4 Q{bow:.3f} 1 0 -0.3" fill="none" stroke="#5b4026" '
            f'stroke-width="0.06" stroke-linecap="round"/>'
        ]
        number = draws.integer(7, 10)
        for leaf in range(number):
            t = leaf / (number - 1)
            # The point of the branch's quadratic curve at t.
            x = 2 * t * (1 - t) * bow
            y = 2.4 * (1 - t) ** 2 + 2 * t * (1 - t) - 0.3 * t**2
            tone = rgb_to_hex(
                colorsys.hsv_to_rgb(
                    (hue + draws.uniform(-0.03, 0.03)) % 1.0,
                    saturation,
                    value * draws.uniform(0.75, 1.25),
                )
            )
            length = draws.uniform(0.60, 0.85) * (1 - 0.25 * t)
            side = -1 if leaf % 2 else 1
            turn = side * draws.uniform(30.0, 75.0) * (1 - t) + draws.uniform(-12.0, 12.0)
            shape = (
                f'<path d="M0 0 C0.42 -0.25 0.34 -0.75 0 -1 C-0.34 -0.75 -0.42 -0.25 0 0 Z" '
                f'fill="{tone}" stroke="{_shade(tone, 0.6)}" stroke-width="0.035"/>'
                f'<path d="M0 0 L0 -0.88" stroke="{_tint(tone, 0.35)}" stroke-width="0.045"/>'
            )
            body.append(_placed(shape, x, y, turn, length))
        azimuth = draws.uniform(0.0, 2 * math.pi)
        reach = draws.uniform(0.05, 0.75)
        x, y = reach * math.sin(azimuth), -reach * math.cos(azimuth)
        turn = math.degrees(azimuth) + 180.0 + draws.uniform(-25.0, 25.0)
        parts.append(_placed("".join(body), x, y, turn, draws.uniform(0.9, 1.35)))
    return "".join(parts)


_DRAWERS = {
    "hand": _hand,
    "microphone": _microphone,
    "lettering": _lettering,
    "cup": _cup,
    "stripes": _stripes,
    "leaves": _leaves,
}
