"""Layers with an equalised learning rate and StyleGAN2's scaled leaky ReLU.

Parameters are stored as the official code stores them (unit variance divided by `lr_multiplier`);
the He factor is applied at run time. Source: rosinality `model.py` `EqualLinear`, `EqualConv2d`.
"""

import math

import flax.linen as nn
import jax
from jaxtyping import Float

from interestyle_jax.models.products import conv_general_dilated, matmul
from interestyle_jax.models.strided_conv import DIMENSIONS, strided_conv


def scaled_leaky_relu(x: Float[jax.Array, "*shape"]) -> Float[jax.Array, "*shape"]:
    """Leaky ReLU with slope 0.2 and gain sqrt(2); any shape."""
    return jax.nn.leaky_relu(x, 0.2) * math.sqrt(2.0)


class EqualDense(nn.Module):
    """Dense layer `x [..., I] -> [..., features]`, optionally with the scaled leaky ReLU."""

    features: int
    lr_multiplier: float = 1.0
    bias_init: float = 0.0
    activation: bool = False

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*B I"]) -> Float[jax.Array, "*B O"]:
        fan_in = x.shape[-1]
        kernel = self.param(
            "kernel", nn.initializers.normal(1.0 / self.lr_multiplier), (fan_in, self.features)
        )
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        x = matmul(x, kernel * (self.lr_multiplier / math.sqrt(fan_in)))
        x = x + bias * self.lr_multiplier
        return scaled_leaky_relu(x) if self.activation else x


class EqualConv(nn.Module):
    """Convolution `x [B, H, W, I] -> [B, H', W', features]`, padded to the same size.

    With `halve` (3x3 only) there is no padding: [B, 2H + 1, 2W + 1, I] -> [B, H, W, features].
    """

    features: int
    kernel_size: int
    halve: bool = False
    bias: bool = True
    activation: bool = False

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W I"]) -> Float[jax.Array, "B h w O"]:
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel = kernel * (1.0 / math.sqrt(size * size * shape[2]))
        if self.halve:
            x = strided_conv(x, kernel)
        else:
            padding = [(size // 2, size // 2)] * 2
            x = conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS)
        if self.bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,))
        return scaled_leaky_relu(x) if self.activation else x
