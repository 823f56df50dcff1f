"""StyleGAN2's modulated convolution as scale, convolve, scale.

The official code builds one kernel a sample and convolves the batch as groups. Scaling the input
by the style and the output by the demodulation is the same number (the convolution is linear in
each input channel), needs one shared convolution, and no collective when the batch is sharded.
The convolution computes in the type of its input; style and demodulation stay in that of `w`. The
style is a step of its own, so that it may be edited (StyleSpace, Wu et al. 2021).
Source: StyleGAN2 (Karras et al. 2020) section 2.2; rosinality `model.py` `ModulatedConv2d`.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.equalized import EqualDense
from interestyle_jax.models.pixel_blocks import (
    PIXEL,
    Block,
    block_conv,
    fused_kernel,
    num_strips,
    of_channels,
    to_planes,
    to_strips,
)
from interestyle_jax.models.products import conv_general_dilated, matmul
from interestyle_jax.models.resample import blur
from interestyle_jax.models.strided_conv import DIMENSIONS, transposed_conv, zero_inserted_conv

# Rows of a map up to which an up-convolution's kernel in blocks is not worth its making.
SMALL = 32


def demodulation(
    style: Float[jax.Array, "B I"], kernel: Float[jax.Array, "K K I O"]
) -> Float[jax.Array, "B O"]:
    """Factors that give every output channel unit variance.

    Args:
      style: [B, I].
      kernel: [K, K, I, O], He factor included.

    Returns:
      [B, O]: rsqrt(sum over kernel of (style * kernel)^2 + 1e-8).
    """
    power = jnp.sum(jnp.square(kernel), axis=(0, 1))
    return jax.lax.rsqrt(matmul(jnp.square(style), power) + 1e-8)


def upsample_conv(
    x: Float[jax.Array, "B H W I"], kernel: Float[jax.Array, "3 3 I O"], *, form: str = "separable"
) -> Float[jax.Array, "B 2*H 2*W O"]:
    """Convolution that doubles the size, then the FIR filter with gain 4.

    Args:
      x: [B, H, W, I].
      kernel: [3, 3, I, O], applied to the zero-inserted map (PyTorch's transposed kernel, flipped).
      form: "separable" (transposed convolution, then the filter as shifted sums: fastest on CPU)
        or "fused" (one 6x6 convolution with the filter folded into the kernel).

    Returns:
      [B, 2H, 2W, O].

    Raises:
      ValueError: form is neither.
    """
    if form == "separable":
        return blur(transposed_conv(x, kernel), padding=(1, 1), gain=2.0)
    if form == "fused":
        return zero_inserted_conv(x, fused_kernel(kernel), padding=3)
    raise ValueError(f"form: expected 'separable' or 'fused', got {form!r}")


class ModulatedConv(nn.Module):
    """`(x [B, H, W, inputs], style [B, inputs]) -> [B, H', W', features]`, H' = 2H with `up`.

    Attributes:
      inputs: channels of x.
      features: channels of the result.
      kernel_size: side of the kernel.
      demodulate: whether output channels are scaled to unit variance.
      up: whether the size doubles.
      form: "separable" or "fused", see `upsample_conv`, or "blocks": maps in `pixel_blocks`.
      block: of x, with the form "blocks".
      out: of the result.
    """

    inputs: int
    features: int
    kernel_size: int = 3
    demodulate: bool = True
    up: bool = False
    form: str = "separable"
    block: Block = PIXEL
    out: Block = PIXEL

    def setup(self) -> None:
        self.modulation = EqualDense(self.inputs, bias_init=1.0)
        size = self.kernel_size
        shape = (size, size, self.inputs, self.features)
        self.kernel = self.param("kernel", nn.initializers.normal(1.0), shape)

    def style(self, w: Float[jax.Array, "B D"]) -> Float[jax.Array, "B I"]:
        """The factors of the input's channels, `w [B, D] -> [B, inputs]`."""
        return self.modulation(w)

    def _scaled_kernel(self, style: jax.Array) -> jax.Array:
        """The kernel with its He factor, in the type of the style at least.

        A frozen kernel may be stored in bfloat16; the demodulation sums in the type of the style.
        """
        kernel = self.kernel.astype(jnp.promote_types(self.kernel.dtype, style.dtype))
        return kernel * (1.0 / math.sqrt(self.kernel_size**2 * self.inputs))

    def __call__(
        self, x: Float[jax.Array, "B H W I"], style: Float[jax.Array, "B I"]
    ) -> Float[jax.Array, "B h w O"]:
        kernel = self._scaled_kernel(style)
        strips = num_strips(x, style)
        scale = to_strips(of_channels(style, self.block), strips)
        x = x * scale[:, None, None, :].astype(x.dtype)
        low = kernel.astype(x.dtype)
        # A kernel in blocks costs more than a small map's filter.
        small = self.up and self.out == PIXEL and strips == 1 and x.shape[1] <= SMALL
        if self.form == "blocks" and not small:
            x = block_conv(x, low, self.block, self.out, up=self.up, strips=strips)
        elif self.up:
            x = upsample_conv(x, low, form="fused" if self.form == "fused" else "separable")
        else:
            padding = self.kernel_size // 2
            x = conv_general_dilated(
                x, low, (1, 1), [(padding, padding)] * 2, dimension_numbers=DIMENSIONS
            )
        if self.demodulate:
            factors = to_strips(of_channels(demodulation(style, kernel), self.out), strips)
            x = x * factors[:, None, None, :].astype(x.dtype)
        return x

    def planes(
        self, x: Float[jax.Array, "B h w C"], style: Float[jax.Array, "B I"]
    ) -> Float[jax.Array, "B 3 H W"]:
        """A ToRGB's convolution of a map in blocks [B, h, w, C], as planes [B, 3, H, W]."""
        kernel = self._scaled_kernel(style)[0, 0]
        return to_planes(x, style[:, :, None] * kernel, self.block)
