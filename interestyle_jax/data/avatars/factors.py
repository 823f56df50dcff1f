"""What decides a clean avatar, as numbers.

A clean image of the avatar world is a function of these factors alone: a one-hot group for each
part that varies, colours, position, stretched features, light and background.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from interestyle_jax.data.avatars.backgrounds import SATURATION, SLOPE, VALUE, Plain
from interestyle_jax.data.avatars.render import (
    FEATURE_STRETCH,
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
)

# Of unit variance are so many times a uniform in [-1, 1], the mean of two, a cosine of any angle.
UNIT, BELL, CIRCLE = math.sqrt(3.0), math.sqrt(6.0), math.sqrt(2.0)
HSV = ("hue", "saturation", "value")


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
        """A name for each factor, such as "hair=bun", "skin.hue" or "tilt"."""
        found = [f"{part}={variant}" for part, known in self.parts.items() for variant in known]
        for name, known in self.colours.items():
            found += [f"{name}={colour}" for colour in known]
            found += [f"{name}.{change}" for change in HSV]
        found += [f"background.{x}" for x in ("hue.x", "hue.y", "saturation", "value", "slope")]
        found += ["tilt", "zoom", "aspect", "shift_x", "shift_y"]
        for name in self.features:
            found += [f"{name}.{change}" for change in ("width", "height", "shift")]
        found += ["light.x", "light.y", "light.strength"]
        return [*found, "light.brightness", "light.warmth"]

    def of(self, drawing: Drawing, light: Light, background: Plain) -> Float[np.ndarray, " F"]:
        """The factors of a drawn avatar, float32 [F]."""
        labels, geometry, values = drawing.labels, drawing.geometry, []
        for part, known in self.parts.items():
            values += [float(labels[part] == variant) for variant in known]
        for name, known in self.colours.items():
            base, moved = drawing.colours[name]
            values += [float(base == colour) for colour in known]
            values += [UNIT * change for change in moved]
        hue, saturation, value = background.hsv
        values += [CIRCLE * part(2 * math.pi * hue) for part in (math.cos, math.sin)]
        values += [_centred(saturation, *SATURATION), _centred(value, *VALUE)]
        values.append(_centred(background.slope, *SLOPE))
        values.append(BELL * geometry.tilt / TILT[1])
        values += [_centred(geometry.zoom, *ZOOM), _centred(geometry.aspect, *ASPECT)]
        values += [_centred(geometry.shift_x, *SHIFT), _centred(geometry.shift_y, *SHIFT)]
        for name in self.features:
            values += [UNIT * change for change in drawing.features.get(name, (0.0,) * 3)]
        warmth = light.gain[0] / light.gain[1] - 1
        values += [
            CIRCLE * math.cos(light.direction),
            CIRCLE * math.sin(light.direction),
            _centred(light.strength, *LIGHT),
            _centred(light.gain[1], *BRIGHTNESS),
            _centred(warmth, *WARMTH),
        ]
        return np.array(values, np.float32)


def _centred(value: float, low: float, high: float) -> float:
    return UNIT * (2 * (value - low) / (high - low) - 1)


@functools.cache
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
