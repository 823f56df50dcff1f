"""Matrix products and convolutions of the networks, in which float32 means float32.

By default JAX rounds the factors of float32 products to TF32 on GPUs and to bfloat16 on TPUs. Here
the operands' type decides: float32 and wider are multiplied with precision HIGHEST, which is part
of the traced program whatever the caller's configuration; half types as fast as the backend can.
Gradients of these products are such products too.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float


def precision_of(dtype: Any) -> jax.lax.Precision | None:
    """HIGHEST for floats of 32 bits and more, None (the default) for half types."""
    return jax.lax.Precision.HIGHEST if jnp.finfo(dtype).bits >= 32 else None


def einsum(subscripts: str, *operands: Any) -> jax.Array:
    """`jnp.einsum` in the operands' common type."""
    precision = precision_of(jnp.result_type(*operands))
    return jnp.einsum(subscripts, *operands, precision=precision)


def matmul(a: Any, b: Any) -> jax.Array:
    """a @ b in their common type."""
    return jnp.matmul(a, b, precision=precision_of(jnp.result_type(a, b)))


def dot_general(
    lhs: Float[jax.Array, "..."], rhs: Float[jax.Array, "..."], *arguments: Any, **options: Any
) -> Float[jax.Array, "..."]:
    """`jax.lax.dot_general` and its shapes, whatever precision it is asked for."""
    return jax.lax.dot_general(
        lhs, rhs, *arguments, **{**options, "precision": precision_of(lhs.dtype)}
    )


def conv_general_dilated(
    lhs: Float[jax.Array, "..."], rhs: Float[jax.Array, "..."], *arguments: Any, **options: Any
) -> Float[jax.Array, "..."]:
    """`jax.lax.conv_general_dilated` and its shapes, whatever precision it is asked for."""
    return jax.lax.conv_general_dilated(
        lhs, rhs, *arguments, **{**options, "precision": precision_of(lhs.dtype)}
    )


class Dense(nn.Dense):
    """Flax's dense layer over `dot_general`."""

    dot_general: Any = dot_general


class Conv(nn.Conv):
    """Flax's convolution over `conv_general_dilated`."""

    conv_general_dilated: Any = conv_general_dilated
