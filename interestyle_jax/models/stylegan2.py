"""The StyleGAN2 generator G: mapping network and W+ synthesis with skip outputs.

Source: StyleGAN2 (Karras et al. 2020), config F; rosinality `model.py` `Generator`. The official
1024 network is the class with its defaults.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.equalized import EqualDense, scaled_leaky_relu
from interestyle_jax.models.modulated_conv import ModulatedConv
from interestyle_jax.models.pixel_blocks import (
    PIXEL,
    Block,
    block_of,
    in_strips,
    num_strips,
    of_channels,
    of_pixels,
    strips_of,
    upsample_planes,
)
from interestyle_jax.models.rematerialise import run_block
from interestyle_jax.models.resample import upsample

Noise = str | jax.Array
FORMS = ("separable", "fused", "blocks")
# Of the mapping network's learning rate, by which its parameters are stored divided.
MAPPING_RATE = 0.01
# With the form "blocks", maps of few images are cut into strips from so many rows on.
STRIPS_FROM = 64


def num_styles(resolution: int) -> int:
    """L = 2 log2(resolution) - 2, the rows of a `w_plus` (18 at 1024).

    Raises:
      ValueError: resolution is no power of two, or below 4.
    """
    levels = int(math.log2(resolution)) if resolution >= 4 else 0
    if 2**levels != resolution:
        raise ValueError(f"resolution: expected a power of two from 4, got {resolution}")
    return 2 * levels - 2


def truncate(
    w: Float[jax.Array, "... D"], w_avg: Float[jax.Array, "... D"], truncation_psi: float
) -> Float[jax.Array, "... D"]:
    """Pulls latents towards the mean: w_avg + psi (w - w_avg); any shapes that broadcast."""
    return w if truncation_psi == 1.0 else w_avg + truncation_psi * (w - w_avg)


class Mapping(nn.Module):
    """`z [B, Z] -> w [B, D]`: pixel norm, then `depth` dense layers at a hundredth of the rate."""

    w_dim: int
    depth: int

    @nn.compact
    def __call__(self, z: Float[jax.Array, "B Z"]) -> Float[jax.Array, "B D"]:
        x = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), axis=-1, keepdims=True) + 1e-8)
        for i in range(self.depth):
            x = EqualDense(self.w_dim, MAPPING_RATE, activation=True, name=f"dense_{i}")(x)
        return x


class StyleLayer(NamedTuple):
    """A modulated convolution, as S space counts them.

    Attributes:
      name: of its parameters, as "up_8".
      row: of `w_plus`, which it takes its style from.
      resolution: of its output.
      channels: of its style, the channels of its input.
      is_rgb: whether it is a ToRGB.
    """

    name: str
    row: int
    resolution: int
    channels: int
    is_rgb: bool


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, scaled leaky ReLU; doubles the size with `up`.

    x is [B, H, W, inputs], style [B, inputs]; `form`, `block` and `out` as in `ModulatedConv`.
    """

    inputs: int
    features: int
    up: bool = False
    form: str = "separable"
    block: Block = PIXEL
    out: Block = PIXEL

    def setup(self) -> None:
        self.conv = ModulatedConv(
            self.inputs, self.features, up=self.up, form=self.form, block=self.block, out=self.out
        )

    def style(self, w: Float[jax.Array, "B D"]) -> Float[jax.Array, "B I"]:
        """As `ModulatedConv.style`."""
        return self.conv.style(w)

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W I"], style: Float[jax.Array, "B I"], noise: Noise
    ) -> Float[jax.Array, "B h w O"]:
        x = self.conv(x, style)
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        rows, columns = self.out
        strips = num_strips(x, style)
        shape = (1, strips * rows * x.shape[1], columns * x.shape[2], 1)
        buffer = self.variable(
            "noise", "noise", lambda: jax.random.normal(self.make_rng("params"), shape)
        )
        if isinstance(noise, str):
            if noise == "const":
                stored = (strength * buffer.value).astype(x.dtype)
                drawn = in_strips(of_pixels(stored, self.out, self.features), strips)
                if strips > 1:
                    # The buffer is everybody's, or (optimised) has a row for each image.
                    drawn = drawn.reshape(-1, strips, *drawn.shape[1:])
                    x = (x.reshape(-1, strips, *x.shape[1:]) + drawn).reshape(x.shape)
                else:
                    x = x + drawn
        else:
            # A normal draw in bfloat16 has 128 values.
            dtype = jnp.promote_types(x.dtype, jnp.float32)
            fresh = jax.random.normal(noise, (style.shape[0], *shape[1:]), dtype)
            fresh = of_pixels((strength * fresh).astype(x.dtype), self.out, self.features)
            x = x + in_strips(fresh, strips)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return scaled_leaky_relu(x + of_channels(bias, self.out).astype(x.dtype))


class ToRGB(nn.Module):
    """`(x [B, H, W, I], style [B, I], skip [B, H/2, W/2, 3] or None) -> image [B, H, W, 3]`.

    The image is summed in float32 at least, whatever the type of x. With the form "blocks", x is in
    blocks, and the image and skip are planes [B, 3, H, W].
    """

    inputs: int
    form: str = "separable"
    block: Block = PIXEL

    def setup(self) -> None:
        self.conv = ModulatedConv(
            self.inputs, 3, kernel_size=1, demodulate=False, form=self.form, block=self.block
        )

    def style(self, w: Float[jax.Array, "B D"]) -> Float[jax.Array, "B I"]:
        """As `ModulatedConv.style`."""
        return self.conv.style(w)

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "B H W I"],
        style: Float[jax.Array, "B I"],
        skip: Float[jax.Array, "B H//2 W//2 3"] | None,
    ) -> Float[jax.Array, "B H W 3"]:
        bias = self.param("bias", nn.initializers.zeros, (3,))
        if self.form == "blocks":
            planes = self.conv.planes(x, style) + bias[:, None, None]
            return planes if skip is None else planes + upsample_planes(skip)
        x = self.conv(x, style)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)) + bias
        return x if skip is None else x + upsample(skip)


class Generator(nn.Module):
    """G: `z -> w` (`map`) and `w_plus -> image` (`synthesize`), also by way of S (`styles`).

    Variables: `params`, and `noise`, the stored noise buffers ([1, H, W, 1] a layer, shared by the
    images of a batch, as in the official checkpoints).

    Attributes:
      resolution: height and width of the image, a power of two.
      w_dim: width of `w`.
      z_dim: width of `z`.
      mapping_depth: layers of the mapping network.
      channel_base: channels at resolution r are min(channel_max, channel_base // r); 32768 is
        channel multiplier 2, the official 1024 model.
      channel_max: most channels of a layer.
      form: how it is computed, one number in each: "separable" or "fused" upsampling convolutions
        (`modulated_conv.upsample_conv`), or "blocks": maps in blocks of pixels, for TPUs.
      dtype: type of the synthesis' maps, e.g. bfloat16; None takes the parameters'. The mapping,
        styles, demodulation and the image stay in float32.
      remat: compute the insides of layers again in the backward pass.
    """

    resolution: int = 1024
    w_dim: int = 512
    z_dim: int = 512
    mapping_depth: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    form: str = "separable"
    dtype: jnp.dtype | None = None
    remat: bool = False

    @property
    def num_styles(self) -> int:
        """L, the rows of a `w_plus`."""
        return num_styles(self.resolution)

    def channels(self, resolution: int) -> int:
        """Channels of the layers at one resolution."""
        return min(self.channel_max, self.channel_base // resolution)

    @property
    def style_layers(self) -> tuple[StyleLayer, ...]:
        """The modulated convolutions in the order of execution, 26 at 1024 pixels."""
        first = self.channels(4)
        layers = [
            StyleLayer("conv_4", 0, 4, first, False),
            StyleLayer("rgb_4", 1, 4, first, True),
        ]
        for i in range(self.num_styles // 2 - 1):
            size, row = 8 * 2**i, 1 + 2 * i
            inner, outer = self.channels(size // 2), self.channels(size)
            layers += [
                StyleLayer(f"up_{size}", row, size, inner, False),
                StyleLayer(f"conv_{size}", row + 1, size, outer, False),
                StyleLayer(f"rgb_{size}", row + 2, size, outer, True),
            ]
        return tuple(layers)

    def setup(self) -> None:
        self.mapping = Mapping(self.w_dim, self.mapping_depth)
        self.input = self.param("input", nn.initializers.normal(1.0), (1, 4, 4, self.channels(4)))
        sizes = [2**i for i in range(3, int(math.log2(self.resolution)) + 1)]
        self.conv_4, self.rgb_4 = self._conv(4, "conv_4"), self._rgb(4)
        self.up_convs = [self._conv(r, f"up_{r}", up=True) for r in sizes]
        self.convs = [self._conv(r, f"conv_{r}") for r in sizes]
        self.rgbs = [self._rgb(r) for r in sizes]

    def block(self, resolution: int) -> Block:
        """Rows and columns of the blocks that maps of one resolution are kept in."""
        # A convolution sees the neighbouring blocks, which are whole ones.
        if self.form != "blocks" or resolution <= 4:
            return PIXEL
        before = self.block(resolution // 2)
        wanted = block_of(self.channels(resolution))
        rows, columns = (min(a, 2 * b) for a, b in zip(wanted, before, strict=True))
        return rows, columns

    def _conv(self, resolution: int, name: str, *, up: bool = False) -> StyledConv:
        before = resolution // 2 if up else resolution
        return StyledConv(
            self.channels(before),
            self.channels(resolution),
            up=up,
            form=self.form,
            block=self.block(before),
            out=self.block(resolution),
            name=name,
        )

    def _rgb(self, resolution: int) -> ToRGB:
        channels, block = self.channels(resolution), self.block(resolution)
        return ToRGB(channels, form=self.form, block=block, name=f"rgb_{resolution}")

    def map(self, z: Float[jax.Array, "B Z"]) -> Float[jax.Array, "B D"]:
        """Maps z [B, Z] (standard normal) to w [B, D], without truncation."""
        return self.mapping(z)

    def synthesize(
        self,
        w_plus: Float[jax.Array, "B L D"],
        noise: Noise = "const",
        *,
        return_skips: bool = False,
    ) -> Float[jax.Array, "B R R 3"] | list[Float[jax.Array, "B _ _ 3"]]:
        """Draws images.

        Args:
          w_plus: [B, L, D].
          noise: "const" (the stored buffers), "none", or a PRNG key for fresh noise.
          return_skips: return the image after every ToRGB, 4x4 first, instead.

        Returns:
          [B, R, R, 3], nominally in [-1, 1], not clipped.

        Raises:
          ValueError: wrong number of rows, or unknown noise.
        """
        styles = self.styles(w_plus)
        return self.synthesize_from_styles(styles, noise, return_skips=return_skips)

    def styles(self, w_plus: Float[jax.Array, "B L D"]) -> tuple[Float[jax.Array, "B _"], ...]:
        """S space: w_plus [B, L, D] -> [B, C] for each of `style_layers`, in their order.

        These are the outputs of the official `modulation` layers (StyleGAN2 in TensorFlow: with the
        1 that is added there), before demodulation.

        Raises:
          ValueError: wrong number of rows.
        """
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.num_styles, self.w_dim):
            raise ValueError(
                f"w_plus: expected [B, {self.num_styles}, {self.w_dim}], got {w_plus.shape}"
            )
        modules: list[Any] = [self.conv_4, self.rgb_4]
        for block in zip(self.up_convs, self.convs, self.rgbs, strict=True):
            modules += block
        return tuple(
            module.style(w_plus[:, layer.row])
            for module, layer in zip(modules, self.style_layers, strict=True)
        )

    def synthesize_from_styles(
        self,
        styles: Sequence[Float[jax.Array, "B _"]],
        noise: Noise = "const",
        *,
        return_skips: bool = False,
    ) -> Float[jax.Array, "B R R 3"] | list[Float[jax.Array, "B _ _ 3"]]:
        """Draws images from styles, [B, C] for each of `style_layers`; else as `synthesize`.

        Raises:
          ValueError: styles of other shapes, or unknown noise.
        """
        found = [style.shape[1:] for style in styles]
        if found != [(layer.channels,) for layer in self.style_layers]:
            channels = ", ".join(str(layer.channels) for layer in self.style_layers)
            raise ValueError(f"styles: expected [B, C] with C = {channels}, got shapes {found}")
        if isinstance(noise, str) and noise not in ("const", "none"):
            raise ValueError(f"noise: expected 'const', 'none' or a PRNG key, got {noise!r}")
        count = 1 + 2 * len(self.convs)
        noises = [noise] * count if isinstance(noise, str) else list(jax.random.split(noise, count))
        x = jnp.broadcast_to(self.input, (styles[0].shape[0], *self.input.shape[1:]))
        x = x if self.dtype is None else x.astype(self.dtype)
        x = self.conv_4(x, styles[0], noises[0])
        skips = [self.rgb_4(x, styles[1], None)]
        for i, (up, conv, rgb) in enumerate(zip(self.up_convs, self.convs, self.rgbs, strict=True)):
            if self.form == "blocks" and x.shape[1] == STRIPS_FROM:
                x = in_strips(x, strips_of(x.shape[0]))
            for j, layer in enumerate((up, conv)):
                style, drawn = styles[2 + 3 * i + j], noises[1 + 2 * i + j]
                x = run_block(layer, x, style, remat=self.remat, noise=drawn)
            skips.append(rgb(x, styles[4 + 3 * i], skips[-1]))
        if self.form == "blocks":
            skips = [planes.transpose(0, 2, 3, 1) for planes in skips]
        return skips if return_skips else skips[-1]

    def __call__(
        self, z: Float[jax.Array, "B Z"], *, noise: Noise = "const"
    ) -> Float[jax.Array, "B R R 3"]:
        """Draws images [B, R, R, 3] from z [B, Z], one `w` for all rows."""
        w = self.map(z)
        w_plus = jnp.broadcast_to(w[:, None], (w.shape[0], self.num_styles, self.w_dim))
        return self.synthesize(w_plus, noise)  # type: ignore[return-value]
