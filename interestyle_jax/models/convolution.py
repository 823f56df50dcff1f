"""The bias-free convolution of residual trunks."""

import flax.linen as nn
import jax.numpy as jnp

from interestyle_jax.models.products import Conv


def conv(features: int, size: int, stride: int, name: str, dtype: jnp.dtype) -> Conv:
    """Bias-free convolution with (size - 1) / 2 pixels of zeros on every side."""
    return Conv(
        features,
        (size, size),
        strides=stride,
        padding=(size - 1) // 2,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        dtype=dtype,
        name=name,
    )
