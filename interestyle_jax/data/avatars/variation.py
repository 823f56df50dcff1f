"""Random draws that are the same on every machine, and the continuous variation of an avatar."""

import colorsys
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

T = TypeVar("T")
# Ranges of what varies: degrees, factors, image widths, and factors of brightness.
TILT, ZOOM, ASPECT, SHIFT = (-12.0, 12.0), (0.93, 1.07), (0.96, 1.04), (-0.025, 0.025)
LIGHT, BRIGHTNESS, WARMTH = (0.0, 0.16), (0.92, 1.05), (-0.04, 0.04)


class Draws:
    """Draws keyed by integers: equal keys give equal draws on every machine.

    Only Philox and `Generator.random` (53 bits of each word) are used, because NumPy may change
    the streams of its other distributions between versions.
    """

    def __init__(self, *key: int):
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))

    def uniform(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * float(self._rng.random())

    def bell(self, low: float, high: float) -> float:
        """One number in [low, high), denser in the middle (mean of two uniforms)."""
        return 0.5 * (self.uniform(low, high) + self.uniform(low, high))

    def integer(self, low: int, high: int) -> int:
        """One integer in [low, high], both ends included."""
        return low + int(self.uniform(0.0, 1.0) * (high - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`, each as likely."""
        return items[self.integer(0, len(items) - 1)]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform(0.0, 1.0) < probability

    def array(self, *shape: int) -> Float[np.ndarray, "*shape"]:
        """float64 array of uniforms in [0, 1)."""
        return self._rng.random(shape)


def hex_to_rgb(colour: str) -> tuple[float, float, float]:
    """'#rrggbb' -> RGB in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5))
    return red, green, blue


def rgb_to_hex(rgb: Iterable[float]) -> str:
    """RGB in [0, 1] (clipped) -> '#rrggbb'."""
    return "#" + "".join(f"{round(255 * min(max(c, 0.0), 1.0)):02x}" for c in rgb)


def jitter_colour(
    draws: Draws, colour: str, *, hue: float, saturation: float, value: float
) -> tuple[str, tuple[float, float, float]]:
    """Moves '#rrggbb' by up to `hue` turns and by factors of up to 1 ± saturation, 1 ± value.

    Returns:
      The colour, and the three changes as shares, in [-1, 1], of the most that may be.
    """
    h, s, v = colorsys.rgb_to_hsv(*hex_to_rgb(colour))
    turned = draws.uniform(-hue, hue)
    stretched = draws.uniform(1 - saturation, 1 + saturation)
    brightened = draws.uniform(1 - value, 1 + value)
    hsv = ((h + turned) % 1.0, min(s * stretched, 1.0), min(v * brightened, 1.0))
    moved = (turned / hue, (stretched - 1) / saturation, (brightened - 1) / value)
    return rgb_to_hex(colorsys.hsv_to_rgb(*hsv)), moved


def hsv_to_rgb(h: float, s: float, v: float) -> Float[np.ndarray, "3"]:
    """HSV in [0, 1] -> RGB array [3] in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(h % 1.0, s, v))


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where the head lies: tilt in degrees, zoom and aspect as factors, shift in image widths."""

    tilt: float
    zoom: float
    aspect: float
    shift_x: float
    shift_y: float


@dataclasses.dataclass(frozen=True)
class Light:
    """A linear ramp of brightness over the avatar, and a colour cast.

    `direction` is in radians, `strength` the change from the middle to the rim, `gain` [3] the
    factor on each of R, G, B.
    """

    direction: float
    strength: float
    gain: tuple[float, float, float]


def draw_geometry(draws: Draws) -> Geometry:
    """Moderate variation: tilt ±12°, zoom ±7 %, aspect ±4 %, shift ±2.5 % of the image."""
    return Geometry(
        tilt=draws.bell(*TILT),
        zoom=draws.uniform(*ZOOM),
        aspect=draws.uniform(*ASPECT),
        shift_x=draws.uniform(*SHIFT),
        shift_y=draws.uniform(*SHIFT),
    )


def draw_light(draws: Draws) -> Light:
    """A soft light from any side, 0–16 % at the rim, with a slight warm or cold cast."""
    brightness, warmth = draws.uniform(*BRIGHTNESS), draws.uniform(*WARMTH)
    return Light(
        direction=draws.uniform(0.0, 2 * math.pi),
        strength=draws.uniform(*LIGHT),
        gain=(brightness * (1 + warmth), brightness, brightness * (1 - warmth)),
    )


def apply_light(rgb: Float[np.ndarray, "H W 3"], light: Light) -> Float[np.ndarray, "H W 3"]:
    """Multiplies float RGB [H, W, 3] in [0, 1] by the light; the result is clipped to [0, 1]."""
    height, width = rgb.shape[:2]
    x = (np.arange(width) + 0.5) / width * 2 - 1
    y = (np.arange(height) + 0.5) / height * 2 - 1
    ramp = x[None, :] * math.cos(light.direction) + y[:, None] * math.sin(light.direction)
    shade = (1 + light.strength * ramp)[..., None] * np.array(light.gain)
    return np.clip(rgb * shade, 0.0, 1.0)
