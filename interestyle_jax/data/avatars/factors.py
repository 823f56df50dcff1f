"""What decides a clean avatar, as numbers: of a drawn one, and of normal draws.

A clean image of the avatar world is a function of these factors alone: a one-hot group for each
part that varies, colours, position, stretched features, light and background. `Factors.of_z` gives
them the distribution that drawn avatars have, so that a generator which draws an image from its
factors becomes one that draws it from z (`training.distillation_task`).
"""

import colorsys
import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.data.avatars.backgrounds import SATURATION, SLOPE, VALUE, Plain
from interestyle_jax.data.avatars.render import (
    FEATURE_STRETCH,
    JITTER,
    STYLES,
    Drawing,
    definition,
    snake,
)
from interestyle_jax.data.avatars.variation import (
    ASPECT,
    BRIGHTNESS,
    LIGHT,
    SHIFT,
    TILT,
    WARMTH,
    ZOOM,
    Light,
    hex_to_rgb,
)

Array = jax.Array
# A uniform in [-1, 1] times this has unit variance; the mean of two needs the square root of 6.
_UNIT, _BELL = math.sqrt(3.0), math.sqrt(6.0)
_COLOUR = 4.0


@dataclasses.dataclass(frozen=True)
class Factors:
    """The factors of a style: groups in a fixed order, each of about unit size.

    Attributes:
      parts: {part that varies: its variants, "none" first where it may be left out}.
      chances: {part that may be left out: how often it is there}.
      colours: {attribute: base colours '#rrggbb', each as likely}.
      features: parts that are stretched and shifted a little.
    """

    parts: Mapping[str, tuple[str, ...]]
    chances: Mapping[str, float]
    colours: Mapping[str, tuple[str, ...]]
    features: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """A name for each factor, such as "hair=bun", "skin.red" or "tilt"."""
        found = [f"{part}={variant}" for part, known in self.parts.items() for variant in known]
        for name in (*self.colours, "background"):
            found += [f"{name}.{channel}" for channel in ("red", "green", "blue")]
        found += ["background.slope", "tilt", "zoom", "aspect", "shift_x", "shift_y"]
        for name in self.features:
            found += [f"{name}.{change}" for change in ("width", "height", "shift")]
        return [*found, "light.x", "light.y", "light.brightness", "light.warmth"]

    @property
    def z_dim(self) -> int:
        """How many numbers of z have a meaning; more are left alone."""
        blocks = sum(len(known) for known in self.parts.values())
        colours = sum(len(base) + 3 for base in self.colours.values())
        # Hue, saturation, value and slope of a background; direction, strength, brightness and
        # warmth of a light. Hue and direction are circles, of two numbers.
        return blocks + colours + 5 + 5 + 3 * len(self.features) + 5

    def of(self, drawing: Drawing, light: Light, background: Plain) -> Float[np.ndarray, " F"]:
        """The factors of a drawn avatar, float32 [F]."""
        labels, geometry, values = drawing.labels, drawing.geometry, []
        for part, known in self.parts.items():
            values += [float(labels[part] == variant) for variant in known]
        for name in self.colours:
            values += [_COLOUR * (c - 0.5) for c in hex_to_rgb(str(labels[f"{name}_colour"]))]
        values += [_COLOUR * (c - 0.5) for c in background.rgb]
        values.append(_centred(background.slope, *SLOPE))
        values.append(_BELL * geometry.tilt / TILT[1])
        values += [_centred(geometry.zoom, *ZOOM), _centred(geometry.aspect, *ASPECT)]
        values += [_centred(geometry.shift_x, *SHIFT), _centred(geometry.shift_y, *SHIFT)]
        for name in self.features:
            values += [_UNIT * change for change in drawing.features.get(name, (0.0,) * 3)]
        warmth = light.gain[0] / light.gain[1] - 1
        values += [
            _UNIT * light.strength / LIGHT[1] * math.cos(light.direction),
            _UNIT * light.strength / LIGHT[1] * math.sin(light.direction),
            _centred(light.gain[1], *BRIGHTNESS),
            _centred(warmth, *WARMTH),
        ]
        return np.array(values, np.float32)

    def of_z(self, z: Float[Array, "B Z"]) -> Float[Array, "B F"]:
        """Factors [B, F] of z [B, at least z_dim], normal; pure.

        They depend on the direction of z alone, which is what a mapping network sees of it. Of each
        group of equally likely kinds the one with the largest number is chosen, angles are those of
        two numbers, and all else is uniform by the normal distribution's own function.
        """
        taken = _Taken(z * jax.lax.rsqrt(jnp.square(z).mean(axis=1, keepdims=True)))
        parts = []
        for part, known in self.parts.items():
            optional = part in self.chances
            there = taken.uniform() < self.chances[part] if optional else True
            kind = taken.kind(len(known) - optional) + optional
            chosen = jnp.where(there, kind, 0)
            parts.append(jax.nn.one_hot(chosen, len(known)))
        for name, base in self.colours.items():
            hsv = jnp.array([colorsys.rgb_to_hsv(*hex_to_rgb(c)) for c in base])
            hsv = hsv[taken.kind(len(base))]
            moved = [JITTER[name][x] * (2 * taken.uniform() - 1) for x in _HSV]
            h = (hsv[:, 0] + moved[0]) % 1.0
            s, v = (jnp.minimum(hsv[:, i] * (1 + moved[i]), 1.0) for i in (1, 2))
            parts.append(_COLOUR * (_rgb(h, s, v) - 0.5))
        h = taken.angle() / (2 * math.pi) % 1.0
        s, v = taken.within(*SATURATION), taken.within(*VALUE)
        parts.append(_COLOUR * (_rgb(h, s, v) - 0.5))
        slope = taken.signed()
        # The mean of two uniforms in [-1, 1], by its distribution's inverse.
        u = taken.uniform()
        tilt = jnp.where(u < 0.5, jnp.sqrt(2 * u) - 1, 1 - jnp.sqrt(2 * (1 - u)))
        rest = [_UNIT * slope, _BELL * tilt]
        rest += [_UNIT * taken.signed() for _ in range(4 + 3 * len(self.features))]
        angle, strength = taken.angle(), _UNIT * taken.uniform()
        rest += [strength * jnp.cos(angle), strength * jnp.sin(angle)]
        rest += [_UNIT * taken.signed(), _UNIT * taken.signed()]
        return jnp.concatenate([*parts, jnp.stack(rest, axis=1)], axis=1)


_HSV = ("hue", "saturation", "value")


class _Taken:
    """Numbers of z, taken one after the other."""

    def __init__(self, z: Array):
        self._z, self._at = z, 0

    def _take(self, count: int) -> Array:
        self._at += count
        return self._z[:, self._at - count : self._at]

    def kind(self, count: int) -> Array:
        return jnp.argmax(self._take(count), axis=1)

    def angle(self) -> Array:
        x, y = self._take(2).T
        return jnp.arctan2(y, x)

    def uniform(self) -> Array:
        return jax.scipy.stats.norm.cdf(self._take(1)[:, 0])

    def signed(self) -> Array:
        return 2 * self.uniform() - 1

    def within(self, low: float, high: float) -> Array:
        return low + (high - low) * self.uniform()


def _centred(value: float, low: float, high: float) -> float:
    return _UNIT * (2 * (value - low) / (high - low) - 1)


def _rgb(h: Array, s: Array, v: Array) -> Float[Array, "B 3"]:
    """HSV in [0, 1], [B] each -> RGB [B, 3], as `colorsys.hsv_to_rgb`."""
    sector = (jnp.array([5.0, 3.0, 1.0]) + 6 * h[:, None]) % 6.0
    ramp = jnp.clip(jnp.minimum(sector, 4 - sector), 0.0, 1.0)
    return v[:, None] * (1 - s[:, None] * ramp)


def factors_of_style(style: str) -> Factors:
    """The factors of one of `STYLES`."""
    facts, components = STYLES[style], definition(style)["components"]
    parts: dict[str, tuple[str, ...]] = {}
    for part, component in components.items():
        variants = sorted(component["variants"])
        none = ["none"] if part in facts.probabilities else []
        if len(variants) + len(none) > 1:
            parts[snake(part)] = (*none, *variants)
    colours: dict[str, Sequence[str]] = {
        attribute: definition(style)["colors"][name]["values"]
        for attribute, name in facts.colours.items()
    }
    return Factors(
        parts,
        {snake(part): percent / 100 for part, percent in facts.probabilities.items()},
        {name: tuple(base) for name, base in colours.items()},
        tuple(part for part in components if part in FEATURE_STRETCH),
    )
