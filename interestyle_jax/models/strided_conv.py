"""The 3x3 convolutions that halve and double a map, each the other's gradient.

XLA's own kernel gradient of either (a convolution dilated on both sides) is many times slower on
CPU than the nine matrix products it stands for, so both are written as such. Gradients of any
order stay inside the pair, as the R1 penalty and path length regularisation need.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.products import conv_general_dilated, einsum

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _swapped(kernel: jax.Array) -> jax.Array:
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def _tap_products(large: jax.Array, small: jax.Array) -> jax.Array:
    """[3, 3, C, D]: products of every second sample of [B, 2H+1, 2W+1, C] with [B, H, W, D]."""
    _, height, width, _ = small.shape

    def tap(row, column):
        samples = large[:, row : row + 2 * height : 2, column : column + 2 * width : 2]
        return einsum("bhwi,bhwo->io", samples, small)

    return jnp.stack([jnp.stack([tap(a, b) for b in range(3)]) for a in range(3)])


def zero_inserted_conv(
    x: Float[jax.Array, "B H W I"], kernel: Float[jax.Array, "K K I O"], *, padding: int
) -> Float[jax.Array, "B h w O"]:
    """Convolution of the map with a zero between its pixels.

    Args:
      x: [B, H, W, I].
      kernel: [K, K, I, O].
      padding: zeros on every side.

    Returns:
      [B, 2H + 2 padding - K, 2W + 2 padding - K, O].
    """
    forms = {"cuda": _as_gradient, "default": _as_convolution}
    forms = {k: functools.partial(form, padding=padding) for k, form in forms.items()}
    return jax.lax.platform_dependent(x, kernel, **forms)


def _as_convolution(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    pads = [(padding, padding)] * 2
    return conv_general_dilated(
        x, kernel, (1, 1), pads, lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
    )


def _as_gradient(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """The same as cuDNN's data gradient, which inserts no zeros.

    XLA tells a data gradient by a kernel that is reversed there; two reversals that meet cancel.
    """
    flipped = jax.lax.optimization_barrier(kernel[::-1, ::-1])
    return _as_convolution(x, flipped[::-1, ::-1], padding=padding)


@jax.custom_vjp
def strided_conv(
    x: Float[jax.Array, "B H W I"], kernel: Float[jax.Array, "3 3 I O"]
) -> Float[jax.Array, "B (H-1)//2 (W-1)//2 O"]:
    """Every second output of a valid convolution.

    Args:
      x: [B, 2H + 1, 2W + 1, I].
      kernel: [3, 3, I, O].

    Returns:
      [B, H, W, O].
    """
    return conv_general_dilated(x, kernel, (2, 2), [(0, 0)] * 2, dimension_numbers=DIMENSIONS)


@jax.custom_vjp
def transposed_conv(
    x: Float[jax.Array, "B H W I"], kernel: Float[jax.Array, "3 3 I O"]
) -> Float[jax.Array, "B 2*H+1 2*W+1 O"]:
    """Convolution of the zero-inserted map.

    Args:
      x: [B, H, W, I].
      kernel: [3, 3, I, O].

    Returns:
      [B, 2H + 1, 2W + 1, O].
    """
    return zero_inserted_conv(x, kernel, padding=2)


def _strided_backward(residuals, cotangent):
    x, kernel = residuals
    return transposed_conv(cotangent, _swapped(kernel)), _tap_products(x, cotangent)


def _transposed_backward(residuals, cotangent):
    x, kernel = residuals
    return strided_conv(cotangent, _swapped(kernel)), _swapped(_tap_products(cotangent, x))


strided_conv.defvjp(lambda x, kernel: (strided_conv(x, kernel), (x, kernel)), _strided_backward)
transposed_conv.defvjp(
    lambda x, kernel: (transposed_conv(x, kernel), (x, kernel)), _transposed_backward
)
