"""Factors of avatars from normal z, with the distribution that drawn avatars have.

So a generator that draws an image from its factors becomes one that draws it from z: each number
of z decides one thing, by the normal distribution's own function.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from interestyle_jax.data.avatars.factors import BELL, CIRCLE, HSV, UNIT, Factors

Curves = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Choice:
    """A number of z that chooses one of several kinds, `chances` [K] in their order."""

    chances: tuple[float, ...]

    @property
    def thresholds(self) -> Float[np.ndarray, " K-1"]:
        """The normal z between a kind and the next."""
        return ndtri(np.cumsum(self.chances)[:-1])

    def __call__(self, z: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B K"]:
        """One-hot factors."""
        return np.eye(len(self.chances))[np.searchsorted(self.thresholds, z)]


@dataclasses.dataclass(frozen=True)
class Smooth:
    """A number of z that decides factors smoothly, by `curves` of u uniform in [0, 1]."""

    curves: Curves

    def __call__(self, z: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B K"]:
        """The factors."""
        return self.curves(ndtr(z))


def draws(factors: Factors) -> list[Choice | Smooth]:
    """What each number of z decides, in the order of `factors.names`."""
    found: list[Choice | Smooth] = []
    for part, known in factors.parts.items():
        if part in factors.chances:
            there, kinds = factors.chances[part], len(known) - 1
            found.append(Choice((1 - there, *[there / kinds] * kinds)))
        else:
            found.append(Choice((1 / len(known),) * len(known)))
    for base in factors.colours.values():
        found += [Choice((1 / len(base),) * len(base)), *[Smooth(_signed)] * len(HSV)]
    # A background's hue, saturation, value and slope.
    found += [Smooth(_circle), *[Smooth(_signed)] * 3]
    # Tilt; zoom, aspect, two shifts and three numbers of each feature.
    found += [Smooth(_bell), *[Smooth(_signed)] * (4 + 3 * len(factors.features))]
    # A light's direction, strength, brightness and warmth.
    return [*found, Smooth(_circle), *[Smooth(_signed)] * 3]


def factors_of_z(factors: Factors, z: Float[np.ndarray, "B Z"]) -> Float[np.ndarray, "B F"]:
    """Factors [B, F] of z [B, Z], standard normal; numbers beyond `draws` are left alone.

    They depend on the direction of z alone, which is what a mapping network sees of it.
    """
    z = z / np.sqrt(np.square(z).mean(axis=1, keepdims=True))
    return np.concatenate([draw(z[:, i]) for i, draw in enumerate(draws(factors))], axis=1)


def _signed(u: np.ndarray) -> np.ndarray:
    return (UNIT * (2 * u - 1))[:, None]


def _circle(u: np.ndarray) -> np.ndarray:
    return CIRCLE * np.stack([np.cos(2 * np.pi * u), np.sin(2 * np.pi * u)], axis=1)


def _bell(u: np.ndarray) -> np.ndarray:
    """The mean of two uniforms in [-1, 1], by its distribution's inverse."""
    low, high = np.sqrt(2 * np.minimum(u, 0.5)) - 1, 1 - np.sqrt(2 * np.minimum(1 - u, 0.5))
    return BELL * np.where(u < 0.5, low, high)[:, None]
