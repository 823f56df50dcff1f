"""Maps in blocks of pixels: [B, H, W, C] as [B, H/y, W/x, y*x*C], pixel (i, j) of a block first.

TPUs compute with 128 channels at once, and pad narrower maps to that. The last stages of a
StyleGAN2 have 64 and 32: in blocks they fill the lanes, and the up-convolution's four phases are
channels of one 3x3 convolution, without zeros between pixels and without a filter of its own. The
numbers are those of the plain forms; the products that are added are with zeros. Between blocks
that channels of 128 and more make up, pixels move in whole lanes.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.models.devices import num_devices
from interestyle_jax.models.products import conv_general_dilated, einsum
from interestyle_jax.models.resample import blur
from interestyle_jax.models.strided_conv import DIMENSIONS

Block = tuple[int, int]
PIXEL: Block = (1, 1)
LANES = 128
SUBLANES = 8


def block_of(channels: int) -> Block:
    """Rows and columns of the blocks that fill the lanes; one pixel from 128 channels on."""
    count = max(1, LANES // channels).bit_length() - 1
    return 2 ** (count // 2), 2 ** (count - count // 2)


def fused_kernel(kernel: Float[jax.Array, "3 3 I O"]) -> Float[jax.Array, "6 6 I O"]:
    """An up-convolution's kernel with the FIR filter (gain 4) folded in, for zero-inserted maps.

    Args:
      kernel: [3, 3, I, O].

    Returns:
      [6, 6, I, O].
    """
    # Input and output channels stay the last two axes of each plane: TPUs tile those.
    planes = blur(kernel.transpose(2, 0, 1, 3), padding=(3, 3), gain=2.0)
    return planes.transpose(1, 2, 0, 3)


def _taps(block: int, size: int, up: bool) -> np.ndarray:
    """1 where a tap leads from pixel i of block d - 1 to pixel y: [3, block, pixels, size]."""
    d, i, y, tap = np.ogrid[-1:2, :block, : 2 * block if up else block, :size]
    return (tap == (2 * (block * d + i) + 3 - y if up else block * d + i + 1 - y)).astype(int)


def block_kernel(
    kernel: Float[jax.Array, "3 3 I O"], block: Block, out: Block, *, up: bool
) -> Float[jax.Array, "3 3 yxI O_"]:
    """The kernel of a convolution, or up-convolution with its filter, between maps in blocks.

    Args:
      kernel: [3, 3, I, O], as for whole maps.
      block: of the input.
      out: of the output; it divides `block`, twice that with `up`.
      up: whether the size doubles.

    Returns:
      [3, 3, y*x*I, pixels*O]; pixels of an output block lie together, blocks in rows before them.
    """
    if block == PIXEL and not up:
        return kernel
    inputs, outputs = kernel.shape[2:]
    whole = fused_kernel(kernel) if up else kernel
    if block == PIXEL:
        # Every second tap for each of 2 x 2 pixels, in whole lanes.
        order = itertools.product(*(range(n) for n in (2 // out[0], 2 // out[1], *out)))
        places = [(out[0] * r + y, out[1] * c + x) for r, c, y, x in order]
        return jnp.concatenate([whole[1 - y :: 2, 1 - x :: 2] for y, x in places], axis=-1)
    # Taken by products with ones: of indices, XLA makes loops on TPUs.
    rows, columns = (_taps(size, len(whole), up).reshape(-1, len(whole)) for size in block)
    ones = (taps.astype(whole.dtype) for taps in (rows, columns))
    taken = einsum("pt,qu,tuio->pqio", *ones, whole)
    pixels = [2 * size if up else size for size in block]
    shape = [3, block[0], pixels[0] // out[0], out[0]]
    shape += [3, block[1], pixels[1] // out[1], out[1], inputs, outputs]
    ordered = taken.reshape(shape).transpose(0, 4, 1, 5, 8, 2, 6, 3, 7, 9)
    return ordered.reshape(3, 3, block[0] * block[1] * inputs, -1)


def block_conv(
    x: Float[jax.Array, "B h w C"],
    kernel: Float[jax.Array, "3 3 I O"],
    block: Block,
    out: Block,
    *,
    up: bool,
    strips: int = 1,
) -> Float[jax.Array, "B h_ w_ D"]:
    """3x3 convolution of a map in blocks, padded to the same size, or an up-convolution.

    Arguments as in `block_kernel`, x [B, H/y, W/x, y*x*I], or the same in so many strips
    (`in_strips`); the result is in blocks `out`, and in as many strips.
    """
    kernel = block_kernel(kernel, block, out, up=up)
    rows_padding = (1, 1)
    if strips > 1:
        x, rows_padding = _with_neighbours(x, strips), (0, 0)
    padding = [rows_padding, (1, 1)]
    x = conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS)
    scale = 2 if up else 1
    rows, columns = scale * block[0] // out[0], scale * block[1] // out[1]
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, rows, columns, channels // (rows * columns))
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * rows, width * columns, -1)


def strips_of(batch: int) -> int:
    """Strips to cut each of so many images into, where a device has fewer than the sublanes.

    TPUs lay the images of a batch side by side in 8 sublanes. XLA cuts lone maps up by itself, for
    one convolution at a time, and copies before and after each. A number that is not known yet
    (jax.export) leaves them whole.
    """
    if jax.export.is_symbolic_dim(batch):
        return 1
    return max(1, SUBLANES // max(1, batch // num_devices()))


def num_strips(x: Float[jax.Array, "_ h w C"], of_images: Float[jax.Array, "B ..."]) -> int:
    """Into how many strips the images of x [B*S, h, w, C] are cut."""
    rows, batch = x.shape[0], of_images.shape[0]
    return 1 if rows == batch else rows // batch


def to_strips(values: Float[jax.Array, "B ..."], strips: int) -> Float[jax.Array, "_ ..."]:
    """Each image's values for all of its strips: [B*S, ...]."""
    return values if strips == 1 else jnp.repeat(values, strips, axis=0)


def in_strips(x: Float[jax.Array, "B h w C"], strips: int) -> Float[jax.Array, "_ _ w C"]:
    """Maps [B, h, w, C] cut into strips of rows, as images of their own: [B*S, h/S, w, C]."""
    batch, height, *others = x.shape
    return x.reshape(batch * strips, height // strips, *others)


def _with_neighbours(x: jax.Array, strips: int) -> jax.Array:
    """Strips [B*S, h, w, C] with the rows next to them, zeros outside of the image."""
    parts = x.reshape(-1, strips, *x.shape[1:])
    none = (0, 0)
    above = jnp.pad(parts[:, :-1, -1:], (none, (1, 0), none, none, none))
    below = jnp.pad(parts[:, 1:, :1], (none, (0, 1), none, none, none))
    whole = jnp.concatenate([above, parts, below], axis=2)
    return whole.reshape(x.shape[0], x.shape[1] + 2, *x.shape[2:])


def of_channels(values: Float[jax.Array, "*B C"], block: Block) -> Float[jax.Array, "*B D"]:
    """What belongs to channels, [..., C], for maps in blocks: [..., y*x*C]."""
    count = block[0] * block[1]
    return values if count == 1 else jnp.tile(values, count)


def of_pixels(
    values: Float[jax.Array, "B H W 1"], block: Block, channels: int
) -> Float[jax.Array, "B h w _"]:
    """What belongs to pixels, [B, H, W, 1], for maps in blocks of pixels of so many channels.

    Returns:
      [B, H/y, W/x, y*x*channels], or the values where a block is a pixel.
    """
    if block == PIXEL:
        return values
    batch, height, width, _ = values.shape
    (y, x), rows, columns = block, height // block[0], width // block[1]
    # Products with ones and zeros take the pixels of a row apart and spread them over the channels:
    # narrow maps are slow to move.
    places = np.eye(columns * x, dtype=np.float32).reshape(columns * x, columns, x)
    values = values.reshape(batch, rows, y, columns * x)
    values = einsum("bryW,Wcx->byxrc", values, places.astype(values.dtype))
    values = values.reshape(batch, y * x, rows, columns)
    spread = np.repeat(np.eye(y * x, dtype=np.float32), channels, axis=1)
    return einsum("bprc,pd->brcd", values, spread.astype(values.dtype))


def to_planes(
    x: Float[jax.Array, "B h w C"], kernel: Float[jax.Array, "B I 3"], block: Block
) -> Float[jax.Array, "B 3 H W"]:
    """A 1x1 convolution of a map in blocks, with a kernel for each image, to planes of colour.

    Columns and rows are put in their places by products with zeros and ones: narrow maps are slow
    to move.

    Args:
      x: [B, H/y, W/x, y*x*I].
      kernel: [B, I, 3].
      block: of x.

    Returns:
      [B, 3, H, W], float32 at least.
    """
    y, columns = block
    batch, height, width, _ = x.shape
    strips = num_strips(x, kernel)
    kernel = to_strips(kernel, strips)
    pixels = jnp.eye(y * columns, dtype=kernel.dtype)
    kernel = einsum("pq,bco->bpcqo", pixels, kernel).reshape(batch, x.shape[-1], -1)
    planes = einsum("bhwc,bcq->bqhw", x, kernel.astype(x.dtype))
    planes = planes.astype(jnp.promote_types(planes.dtype, jnp.float32))
    planes = planes.reshape(-1, strips, y, columns, 3, height, width)
    if columns > 1:
        planes = einsum("bsyxohw,wxW->bsyohW", planes, _places(width, columns, planes.dtype))
    else:
        planes = planes[:, :, :, 0]
    if y > 1:
        planes = einsum("bsyohW,hyH->bosHW", planes, _places(height, y, planes.dtype))
    else:
        planes = planes[:, :, 0].swapaxes(1, 2)
    return planes.reshape(-1, 3, strips * height * y, width * columns)


def _places(blocks: int, size: int, dtype: jnp.dtype) -> np.ndarray:
    """1 where pixel i of a block belongs along an axis: [blocks, size, blocks * size]."""
    return np.eye(blocks * size, dtype=np.float32).reshape(blocks, size, -1).astype(dtype)


def upsample_planes(planes: Float[jax.Array, "B 3 H W"]) -> Float[jax.Array, "B 3 2*H 2*W"]:
    """As `resample.upsample` of planes [B, 3, H, H], by products with the filter as a matrix."""
    size = planes.shape[2]
    identity = np.eye(size, dtype=np.float32)
    before, after = np.eye(size, k=-1, dtype=np.float32), np.eye(size, k=1, dtype=np.float32)
    pair = np.stack([0.75 * identity + 0.25 * before, 0.75 * identity + 0.25 * after], axis=1)
    band = jnp.asarray(pair.reshape(2 * size, size), planes.dtype)
    return einsum("Hh,bchw,Ww->bcHW", band, planes, band)
