"""Ranger: rectified Adam with lookahead and centralised gradients.

The official pSp, e4e, ReStyle and IntereStyle trainers all use the same Ranger file. Optax parts
serve where they agree with it: moments, decoupled weight decay and the learning rate do;
`optax.scale_by_radam` (which adds eps to the bias-corrected root), `optax.centralize` (which keeps
the first axis) and `optax.lookahead` (which doubles the parameters) do not.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Shaped


class RectifiedAdamState(NamedTuple):
    """Step count (int32 scalar) and the two moments, trees shaped like the parameters."""

    count: jax.Array  # type: ignore[assignment]
    mu: Any
    nu: Any


class LookaheadState(NamedTuple):
    """Step count (int32 scalar), slow weights (a tree like the parameters), inner state."""

    count: jax.Array  # type: ignore[assignment]
    slow: Any
    inner: Any


def ranger(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.999,
    eps: float = 1e-5,
    k: int = 6,
    alpha: float = 0.5,
    weight_decay: float = 0.0,
    threshold: float = 5.0,
) -> optax.GradientTransformation:
    """Ranger as the official encoder trainers use it, for Flax-shaped parameters.

    Args:
      learning_rate: step size, or a schedule of the step count.
      b1, b2: decay rates of the first and second moment.
      eps: added to the root of the second moment, which is not bias-corrected inside the root.
      k: steps between two synchronisations with the slow weights.
      alpha: how far the slow weights move towards the fast ones at a synchronisation.
      weight_decay: decoupled, times the learning rate.
      threshold: the rectified step is taken where N_sma is above it; the plain momentum below.

    Returns:
      A transformation whose `update` needs `params`. The trees `mu`, `nu` and `slow` in its state
      have the parameters' structure, shapes and dtypes, so they shard and save like them.

    Source: the official `ranger.py`.
    """
    fast = optax.chain(
        centralize_gradients(),
        scale_by_rectified_adam(b1=b1, b2=b2, eps=eps, threshold=threshold),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )
    return lookahead(fast, k=k, alpha=alpha)


def centralize_gradients() -> optax.GradientTransformation:
    """Subtract each gradient's mean over all axes but the last, where it has more than one.

    The official code averages over all but PyTorch's first axis, the output channel; Flax kernels
    ([..., in, out]) keep it last.
    """

    def centralize(gradient: jax.Array) -> jax.Array:
        if gradient.ndim < 2:
            return gradient
        return gradient - gradient.mean(axis=tuple(range(gradient.ndim - 1)), keepdims=True)

    return optax.stateless(lambda updates, _: jax.tree.map(centralize, updates))


def scale_by_rectified_adam(
    *, b1: float, b2: float, eps: float, threshold: float
) -> optax.GradientTransformation:
    """Rectified Adam with eps outside the uncorrected root, as the official Ranger has it.

    The update is `scale * mu / (sqrt(nu) + eps)` where N_sma > threshold, `mu / (1 - b1^t)`
    elsewhere; see `rectified_scale`.
    """

    def init(params: Any) -> RectifiedAdamState:
        return RectifiedAdamState(
            count=jnp.zeros([], jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def update(
        updates: Any, state: RectifiedAdamState, params: Any = None
    ) -> tuple[Any, RectifiedAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        is_rectified, scale = rectified_scale(count, b1=b1, b2=b2, threshold=threshold)

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            denominator = jnp.where(is_rectified, jnp.sqrt(v) + eps, 1.0)
            return (scale * m / denominator).astype(m.dtype)

        return jax.tree.map(step, mu, nu), RectifiedAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def rectified_scale(
    count: Int[jax.Array, ""], *, b1: float, b2: float, threshold: float
) -> tuple[Shaped[jax.Array, ""], Float[jax.Array, ""]]:
    """Whether step `count` (1, 2, ...) is rectified, and the factor of its update.

    Returns:
      (bool scalar, float32 scalar): sqrt((1 - b2^t) r_t) / (1 - b1^t) with the rectification r_t of
      Liu et al. 2020 (RAdam, Eq. 5) where N_sma > threshold, 1 / (1 - b1^t) elsewhere.
    """
    n_max = 2.0 / (1.0 - b2) - 1.0
    t = count.astype(jnp.float32)
    correction_1 = -jnp.expm1(t * math.log(b1))
    correction_2 = -jnp.expm1(t * math.log(b2))
    n_sma = simple_average_length(count, b2=b2)
    is_rectified = n_sma > threshold
    safe = jnp.where(is_rectified, n_sma, n_max)
    rectification = (safe - 4.0) / (n_max - 4.0) * ((safe - 2.0) / safe) * (n_max / (n_max - 2.0))
    numerator = jnp.where(is_rectified, jnp.sqrt(correction_2 * rectification), 1.0)
    return is_rectified, numerator / correction_1


def simple_average_length(count: Int[jax.Array, ""], *, b2: float) -> Float[jax.Array, ""]:
    """N_sma at step `count`: 2 / (1 - b2) - 1 - 2 t b2^t / (1 - b2^t), float32 scalar.

    Early steps subtract two numbers near 2000 to find one near 6, so float32 takes the series of
    the second term around t = 0, whose leading parts cancel in Python's float64.
    """
    n_max = 2.0 / (1.0 - b2) - 1.0
    decay = -math.log(b2)
    t = count.astype(jnp.float32)
    x = decay * t
    # (x/2) coth(x/2) - 1 by its Bernoulli series; 5 terms leave 1e-8 relative below x = 1.
    y = jnp.minimum(x, 1.0) ** 2
    series = y * (1 / 12 + y * (-1 / 720 + y * (1 / 30240 + y * (-1 / 1209600 + y / 47900160))))
    early = (n_max - 2.0 / decay) + t - (2.0 / decay) * series
    late = n_max - 2.0 * t / jnp.expm1(x)
    return jnp.where(x < 1.0, early, late)


def lookahead(
    inner: optax.GradientTransformation, *, k: int, alpha: float
) -> optax.GradientTransformation:
    """Lookahead (Zhang et al. 2019) as an ordinary transformation, slow weights in its state.

    The slow weights start as the parameters; at every k-th step they move by `alpha` towards the
    fast ones and the fast ones become them (to one rounding, since an update is a difference).
    """

    def init(params: Any) -> LookaheadState:
        # A copy, so that parameters and state can be donated together.
        slow = jax.tree.map(jnp.copy, params)
        return LookaheadState(jnp.zeros([], jnp.int32), slow, inner.init(params))

    def update(
        updates: Any, state: LookaheadState, params: Any = None
    ) -> tuple[Any, LookaheadState]:
        if params is None:
            raise ValueError("lookahead's update needs params: call update(grads, state, params)")
        updates, inner_state = inner.update(updates, state.inner, params)
        count = optax.safe_increment(state.count)
        is_sync = count % k == 0
        fast = optax.apply_updates(params, updates)
        slow = jax.tree.map(
            lambda s, f: jnp.where(is_sync, s + alpha * (f - s), s), state.slow, fast
        )
        updates = jax.tree.map(lambda u, s, p: jnp.where(is_sync, s - p, u), updates, slow, params)
        return updates, LookaheadState(count=count, slow=slow, inner=inner_state)

    return optax.GradientTransformation(init, update)
