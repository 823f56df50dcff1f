"""Batch normalisation with PyTorch's running statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from interestyle_jax.models.devices import first_axis_on_devices, num_devices


def on_devices(rows: Float[jax.Array, "B ..."]) -> Float[jax.Array, "G b ..."]:
    """Rows [B, ...] by the device that holds them, [G, B / G, ...]; G is `num_devices`."""
    return first_axis_on_devices(rows.reshape(num_devices(), -1, *rows.shape[1:]))


def _joined(batch_stats: PyTree) -> jax.Array:
    """Leaves [..., C] side by side as one array: what is done to all of them is one operation."""
    return jnp.concatenate(jax.tree.leaves(batch_stats), axis=-1)


def _taken_apart(joined: jax.Array, like: PyTree) -> PyTree:
    """The leaves [..., C] of `_joined`, in a tree with the widths C of `like`."""
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([leaf.shape[-1] for leaf in leaves])
    return jax.tree.unflatten(tree, jnp.split(joined, ends[:-1], axis=-1))


def mean_of_devices(batch_stats: PyTree) -> PyTree:
    """Running statistics of each device, leaves [G, C], as their means [C].

    They are averaged as one array, so in one collective.
    """
    joined = first_axis_on_devices(_joined(batch_stats))
    return _taken_apart(joined.mean(axis=0), batch_stats)


def of_devices(batch_stats: PyTree) -> PyTree:
    """Running statistics, leaves [C], as every device's own, [G, C]."""
    count = num_devices()

    def spread(leaf):
        return first_axis_on_devices(jnp.broadcast_to(leaf, (count, *leaf.shape)))

    return jax.tree.map(spread, batch_stats)


def of_passes(batch_stats: PyTree, count: int) -> PyTree:
    """Running statistics, leaves [..., C], as those of passes in one call: [..., count, C]."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * count, axis=-2), batch_stats)


def after_passes(before: PyTree, moved: PyTree) -> PyTree:
    """Running statistics after passes one by one, from where one call left them.

    Args:
      before: leaves [..., C].
      moved: leaves [..., P, C]: from `before`, moved by each pass alone.

    Returns:
      Leaves [..., C].
    """
    start, own = _joined(before), _joined(moved)
    value = own[..., 0, :]
    for k in range(1, own.shape[-2]):
        value = own[..., k, :] + BatchNorm.momentum * (value - start)
    return _taken_apart(value, before)


class BatchNorm(nn.Module):
    """Normalises the last axis of `x [..., C]` over all others.

    Variables: `params` (`scale`, `bias` [C]) and `batch_stats` (`mean`, `var` [C]). With
    `train=True` the batch's statistics normalise and, where `batch_stats` is mutable, move the
    running ones: running = momentum * running + (1 - momentum) * batch. The batch is normalised by
    its biased variance, and the running variance stores the unbiased one (n / (n - 1)), which
    `flax.linen.BatchNorm` does not do. Statistics are computed in float32 at least.

    Under `jax.jit` with the batch axis sharded the statistics are those of the global batch, or
    with `local` of each device's rows: then running statistics become every device's own, [G, C]
    (`of_devices`, `mean_of_devices`), and nothing is sent between devices. Devices are those of the
    mesh of `jax.set_mesh`, each with equally many rows.

    Running statistics with one axis more, [..., P, C] (`of_passes`), say that x holds the rows of P
    passes in turn, row P i + k of pass k; each is normalised by its own rows (`after_passes`).

    Attributes:
      momentum: share of the old running value that is kept; PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance.
      affine: learn `scale` and `bias`.
      local: take each device's statistics of its own rows, with `train=True`.

    Source: PyTorch `BatchNorm2d`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    affine: bool = True
    local: bool = False

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "... C"], *, train: bool = False
    ) -> Float[jax.Array, "... C"]:
        channels = (x.shape[-1],)
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        y = x.astype(dtype)
        if train:
            rows = int(self.local)
            y = on_devices(y) if self.local else y
            own, apart = y.shape[:rows], set(range(rows))
            if running_mean.value.ndim > 1 + rows:
                passes = running_mean.value.shape[-2]
                y = y.reshape(*own, -1, passes, *y.shape[rows + 1 :])
                own, apart = (*own, passes), apart | {rows + 1}
            axes = tuple(sorted(set(range(y.ndim - 1)) - apart))
            mean = jnp.mean(y, axes, keepdims=True)
            # Two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
            var = jnp.mean(jnp.square(y - mean), axes, keepdims=True)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                count = y.size // mean.size
                unbiased = var * (count / max(count - 1, 1))
                for running, batch in ((running_mean, mean), (running_var, unbiased)):
                    moved = self.momentum * running.value
                    moved = moved + (1 - self.momentum) * batch.reshape(*own, *channels)
                    running.value = moved.astype(running.value.dtype)
        else:
            mean, var = running_mean.value, running_var.value
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            factor = factor * self.param("scale", nn.initializers.ones, channels)
        y = (y - mean) * factor
        if self.affine:
            y = y + self.param("bias", nn.initializers.zeros, channels)
        return y.reshape(x.shape).astype(x.dtype)
