"""Rates and latent noise of the projector of StyleGAN2 (Karras et al. 2020, appendix D)."""

import math

import numpy as np
from jaxtyping import Float

# Shares of the steps in which the rate rises at the start, and falls at the end.
RAMP_UP, RAMP_DOWN = 0.05, 0.25
# Share of the steps in which noise is added to the latent.
NOISE_RAMP = 0.75


def learning_rates(steps: int, *, rate: float = 0.1) -> Float[np.ndarray, " N"]:
    """The rate of every step, [steps]: linear from 0, `rate`, then along a cosine towards 0."""
    t = np.arange(steps) / max(steps, 1)
    down = np.minimum(1.0, (1.0 - t) / RAMP_DOWN)
    down = 0.5 - 0.5 * np.cos(down * math.pi)
    return rate * down * np.minimum(1.0, t / RAMP_UP)


def latent_noise(steps: int, *, factor: float = 0.05) -> Float[np.ndarray, " N"]:
    """Of every step, [steps], what the noise on the latent is in spreads of W."""
    t = np.arange(steps) / max(steps, 1)
    return factor * np.square(np.maximum(0.0, 1.0 - t / NOISE_RAMP))
