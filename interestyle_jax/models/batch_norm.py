"""Batch normalisation with PyTorch's running statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float


class BatchNorm(nn.Module):
    """Normalises the last axis of `x [..., C]` over all others.

    Variables: `params` (`scale`, `bias` [C]) and `batch_stats` (`mean`, `var` [C]). With
    `train=True` the batch's statistics normalise and, where `batch_stats` is mutable, move the
    running ones: running = momentum * running + (1 - momentum) * batch. The batch is normalised by
    its biased variance, and the running variance stores the unbiased one (n / (n - 1)), which
    `flax.linen.BatchNorm` does not do. Statistics are computed in float32 at least.

    Under `jax.jit` with the batch axis sharded the statistics are those of the global batch.

    Attributes:
      momentum: share of the old running value that is kept; PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance.
      affine: learn `scale` and `bias`.

    Source: PyTorch `BatchNorm2d`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    affine: bool = True

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
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(y, axes)
            # Two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
            var = jnp.mean(jnp.square(y - mean), axes)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                for running, batch in ((running_mean, mean), (running_var, unbiased)):
                    moved = self.momentum * running.value + (1 - self.momentum) * batch
                    running.value = moved.astype(running.value.dtype)
        else:
            mean, var = running_mean.value, running_var.value
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            factor = factor * self.param("scale", nn.initializers.ones, channels)
        y = (y - mean) * factor
        if self.affine:
            y = y + self.param("bias", nn.initializers.zeros, channels)
        return y.astype(x.dtype)
