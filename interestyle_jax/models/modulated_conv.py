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
from interestyle_jax.models.products import conv_general_dilated, matmul
from interestyle_jax.models.resample import FIR, blur
from interestyle_jax.models.strided_conv import DIMENSIONS, transposed_conv


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
        size, _, inputs, outputs = kernel.shape
        taps = 2.0 * jnp.asarray(FIR, kernel.dtype)
        planes = kernel.transpose(2, 3, 0, 1).reshape(inputs * outputs, size, size, 1)
        fir = jnp.outer(taps, taps)[:, :, None, None]
        planes = conv_general_dilated(
            planes, fir, (1, 1), [(3, 3)] * 2, dimension_numbers=DIMENSIONS
        )
        fused = planes.reshape(inputs, outputs, size + 3, size + 3).transpose(2, 3, 0, 1)
        return conv_general_dilated(
            x, fused, (1, 1), [(3, 3)] * 2, lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )
    raise ValueError(f"form: expected 'separable' or 'fused', got {form!r}")


class ModulatedConv(nn.Module):
    """`(x [B, H, W, inputs], style [B, inputs]) -> [B, H', W', features]`, H' = 2H with `up`."""

    inputs: int
    features: int
    kernel_size: int = 3
    demodulate: bool = True
    up: bool = False
    up_form: str = "separable"

    def setup(self) -> None:
        self.modulation = EqualDense(self.inputs, bias_init=1.0)

    def style(self, w: Float[jax.Array, "B D"]) -> Float[jax.Array, "B I"]:
        """The factors of the input's channels, `w [B, D] -> [B, inputs]`."""
        return self.modulation(w)

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W I"], style: Float[jax.Array, "B I"]
    ) -> Float[jax.Array, "B h w O"]:
        size = self.kernel_size
        shape = (size, size, self.inputs, self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        # A frozen kernel may be stored in bfloat16; the demodulation sums in the type of the style.
        kernel = kernel.astype(jnp.promote_types(kernel.dtype, style.dtype))
        kernel = kernel * (1.0 / math.sqrt(size * size * self.inputs))
        x = x * style[:, None, None, :].astype(x.dtype)
        low = kernel.astype(x.dtype)
        if self.up:
            x = upsample_conv(x, low, form=self.up_form)
        else:
            x = conv_general_dilated(
                x, low, (1, 1), [(size // 2, size // 2)] * 2, dimension_numbers=DIMENSIONS
            )
        if self.demodulate:
            x = x * demodulation(style, kernel)[:, None, None, :].astype(x.dtype)
        return x
