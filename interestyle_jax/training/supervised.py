"""What tasks with a plain loss share: the rate over the steps, the step itself, noise on images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, PRNGKeyArray


def cosine_schedule(rate: float, steps: int, *, warmup: int, end: float = 0.0) -> optax.Schedule:
    """From 0 to `rate` within `warmup` steps, half of all at most, then by a cosine to `end`."""
    warmup = min(warmup, steps // 2)
    return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(steps, warmup + 1), end)


def moving_average(average: Any, params: Any, step: Int[jax.Array, ""], *, steps: float) -> Any:
    """The average of arrays [...] after a step: of the last ones at first, then of `steps`."""
    decay = 1 - 1 / jnp.minimum(1 + 0.1 * step, steps)
    return jax.tree.map(lambda a, b: b + decay * (a - b), average, params)


def averaged_step(
    losses: Callable[[Any], dict[str, Float[jax.Array, " B"]]],
    state: Any,
    optimizer: optax.GradientTransformation,
    *,
    steps: float,
    limit: Callable[[Any], Any] = lambda params: params,
) -> tuple[Any, dict[str, Float[jax.Array, ""]]]:
    """One step along the gradient of the mean "loss".

    Args:
      losses: parameters -> {name: [B]}, with a "loss".
      state: with `step`, `params`, their moving average `ema`, and `opt_state`.
      optimizer: of the parameters.
      steps: of the moving average, see `moving_average`.
      limit: what a task holds its new parameters to.

    Returns:
      The new state, and the means of the losses before the step.
    """

    def objective(params):
        metrics = {name: value.mean() for name, value in losses(params).items()}
        return metrics["loss"], metrics

    grads, metrics = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = limit(optax.apply_updates(state.params, updates))
    ema = moving_average(state.ema, params, state.step, steps=steps)
    return state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state), metrics


def add_noise(
    key: PRNGKeyArray, images: Float[jax.Array, "B H W 3"], *, most: float
) -> Float[jax.Array, "B H W 3"]:
    """Images [B, H, W, 3] with normal noise, each of its own deviation between 0 and `most`."""
    strength_key, noise_key = jax.random.split(key)
    strength = most * jax.random.uniform(strength_key, (len(images), 1, 1, 1))
    return images + strength * jax.random.normal(noise_key, images.shape)
