"""Factors of avatars from normal z, with the distribution that drawn avatars have.

So a generator that draws an image from its factors becomes one that draws it from z.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.data.avatars.factors import BELL, CIRCLE, HSV, UNIT, Factors


def meaningful_dims(factors: Factors) -> int:
    """How many numbers of z have a meaning; more are left alone."""
    blocks = sum(len(known) for known in factors.parts.values())
    colours = sum(len(base) + len(HSV) for base in factors.colours.values())
    # Hue, saturation, value and slope of a background; direction, strength, brightness and warmth
    # of a light. Hue and direction are circles, of two numbers.
    return blocks + colours + 5 + 5 + 3 * len(factors.features) + 5


def factors_of_z(factors: Factors, z: Float[jax.Array, "B Z"]) -> Float[jax.Array, "B F"]:
    """Factors [B, F] of z [B, at least `meaningful_dims`], standard normal; pure.

    They depend on the direction of z alone, which is what a mapping network sees of it. Of each
    group of equally likely kinds the one with the largest number is chosen, angles are those of
    two numbers, and all else is uniform by the normal distribution's own function.
    """
    taken = _Taken(z * jax.lax.rsqrt(jnp.square(z).mean(axis=1, keepdims=True)))
    parts = []
    for part, known in factors.parts.items():
        optional = part in factors.chances
        there = taken.uniform() < factors.chances[part] if optional else True
        kind = taken.kind(len(known) - optional) + optional
        parts.append(jax.nn.one_hot(jnp.where(there, kind, 0), len(known)))
    for base in factors.colours.values():
        parts.append(jax.nn.one_hot(taken.kind(len(base)), len(base)))
        parts.append(jnp.stack([UNIT * taken.signed() for _ in HSV], axis=1))
    hue = taken.angle()
    rest = [CIRCLE * jnp.cos(hue), CIRCLE * jnp.sin(hue)]
    rest += [UNIT * taken.signed() for _ in ("saturation", "value", "slope")]
    # The mean of two uniforms in [-1, 1], by its distribution's inverse.
    u = taken.uniform()
    rest.append(BELL * jnp.where(u < 0.5, jnp.sqrt(2 * u) - 1, 1 - jnp.sqrt(2 * (1 - u))))
    rest += [UNIT * taken.signed() for _ in range(4 + 3 * len(factors.features))]
    angle, strength = taken.angle(), UNIT * taken.uniform()
    rest += [strength * jnp.cos(angle), strength * jnp.sin(angle)]
    rest += [UNIT * taken.signed(), UNIT * taken.signed()]
    return jnp.concatenate([*parts, jnp.stack(rest, axis=1)], axis=1)


class _Taken:
    """Numbers of z, taken one after the other."""

    def __init__(self, z: jax.Array):
        self._z, self._at = z, 0

    def _take(self, count: int) -> jax.Array:
        self._at += count
        return self._z[:, self._at - count : self._at]

    def kind(self, count: int) -> jax.Array:
        return jnp.argmax(self._take(count), axis=1)

    def angle(self) -> jax.Array:
        x, y = self._take(2).T
        return jnp.arctan2(y, x)

    def uniform(self) -> jax.Array:
        return jax.scipy.stats.norm.cdf(self._take(1)[:, 0])

    def signed(self) -> jax.Array:
        return 2 * self.uniform() - 1
