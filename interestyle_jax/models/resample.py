"""StyleGAN2's resampling with the FIR filter [1, 3, 3, 1], as sums of shifted slices.

A depthwise convolution would say the same in one line; it is the slowest part of a synthesis on
CPU, and the slice form fuses into its neighbours on every backend.
Source: StyleGAN2 (Karras et al. 2020) `upfirdn_2d.py`; rosinality `model.py` `Blur`, `Upsample`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

FIR = (0.125, 0.375, 0.375, 0.125)


def _filter_axis(x: jax.Array, axis: int, padding: tuple[int, int], gain: float) -> jax.Array:
    pads = [(0, 0)] * x.ndim
    pads[axis] = padding
    x = jnp.pad(x, pads)
    length = x.shape[axis] - len(FIR) + 1
    taps = [
        jax.lax.slice_in_dim(x, i, i + length, axis=axis) * (gain * tap)
        for i, tap in enumerate(FIR)
    ]
    return sum(taps[1:], taps[0])


def blur(
    x: Float[jax.Array, "B H W C"], *, padding: tuple[int, int], gain: float = 1.0
) -> Float[jax.Array, "B h w C"]:
    """Filters with outer(FIR, FIR), zero-padded alike on both axes.

    Args:
      x: [B, H, W, C].
      padding: rows (columns) of zeros before and after.
      gain: factor per axis; 2.0 keeps the brightness of a zero-inserted map.

    Returns:
      [B, H + sum(padding) - 3, W + sum(padding) - 3, C].
    """
    return _filter_axis(_filter_axis(x, 1, padding, gain), 2, padding, gain)


def _upsample_axis(x: jax.Array, axis: int) -> jax.Array:
    length = x.shape[axis]
    pads = [(0, 0)] * x.ndim
    pads[axis] = (1, 1)
    padded = jnp.pad(x, pads)
    before = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, length + 2, axis=axis)
    pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis=axis + 1)
    return pair.reshape(x.shape[:axis] + (2 * length,) + x.shape[axis + 1 :])


def upsample(x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B 2*H 2*W C"]:
    """Doubles height and width: zero insertion, then the FIR filter with gain 4, padding (2, 1).

    Args:
      x: [B, H, W, C].

    Returns:
      [B, 2H, 2W, C]. Source: rosinality `model.py` `Upsample` (the skip path of `ToRGB`).
    """
    return _upsample_axis(_upsample_axis(x, 1), 2)


def downsample(x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B H//2 W//2 C"]:
    """Halves even height and width: the FIR filter with padding (1, 1), then every second sample.

    Args:
      x: [B, H, W, C], H and W even.

    Returns:
      [B, H/2, W/2, C]. Source: the skip path of rosinality `model.py` `ResBlock`.
    """
    return blur(x, padding=(1, 1))[:, ::2, ::2]
