"""Inception-v3 as FID uses it: the TensorFlow network of 2015-12-05 up to its pooled features.

Layer names are torchvision's. It differs from torchvision's network in what its pools do: average
pools leave the padding out of the mean, and the last block has a max-pool.
Source: pytorch-fid's `inception.py` and torchvision's `inception.py`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.products import Conv

INPUT_SIZE, NUM_FEATURES = 299, 2048
# Smallest side for which the last map has a pixel.
MIN_SIZE = 75
AVERAGE, MAXIMUM, HALVE = "average", "maximum", "halve"


def _conv(name: str, features: int, height: int = 1, width: int = 1, *, valid: int = 0):
    """(name, features, kernel, stride, padding); `valid` is the stride of one without padding."""
    padding = (0, 0) if valid else (height // 2, width // 2)
    return name, features, (height, width), valid or 1, padding


def _chain(prefix: str, *layers: tuple[int, ...]):
    """Convolutions prefix_1, prefix_2, ..., each (features, height, width)."""
    return tuple(_conv(f"{prefix}_{i}", *layer) for i, layer in enumerate(layers, start=1))


def _block_a(pool: int):
    return (
        (_conv("branch1x1", 64),),
        _chain("branch5x5", (48,), (64, 5, 5)),
        _chain("branch3x3dbl", (64,), (96, 3, 3), (96, 3, 3)),
        (AVERAGE, _conv("branch_pool", pool)),
    )


_BLOCK_B = (
    (_conv("branch3x3", 384, 3, 3, valid=2),),
    (
        *_chain("branch3x3dbl", (64,), (96, 3, 3)),
        _conv("branch3x3dbl_3", 96, 3, 3, valid=2),
    ),
    (HALVE,),
)


def _block_c(inner: int):
    return (
        (_conv("branch1x1", 192),),
        _chain("branch7x7", (inner,), (inner, 1, 7), (192, 7, 1)),
        _chain("branch7x7dbl", (inner,), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7)),
        (AVERAGE, _conv("branch_pool", 192)),
    )


_BLOCK_D = (
    (_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, 3, valid=2)),
    (
        *_chain("branch7x7x3", (192,), (192, 1, 7), (192, 7, 1)),
        _conv("branch7x7x3_4", 192, 3, 3, valid=2),
    ),
    (HALVE,),
)


def _fork(prefix: str):
    """Two convolutions side by side, of whose results a branch consists."""
    return _conv(f"{prefix}a", 384, 1, 3), _conv(f"{prefix}b", 384, 3, 1)


def _block_e(pool: str):
    return (
        (_conv("branch1x1", 320),),
        (_conv("branch3x3_1", 384), _fork("branch3x3_2")),
        (*_chain("branch3x3dbl", (448,), (384, 3, 3)), _fork("branch3x3dbl_3")),
        (pool, _conv("branch_pool", 192)),
    )


# The layers in order: a convolution, HALVE, or (block's name, its branches).
STEM: tuple[Any, ...] = (
    _conv("Conv2d_1a_3x3", 32, 3, 3, valid=2),
    _conv("Conv2d_2a_3x3", 32, 3, 3, valid=1),
    _conv("Conv2d_2b_3x3", 64, 3, 3),
    HALVE,
    _conv("Conv2d_3b_1x1", 80),
    _conv("Conv2d_4a_3x3", 192, 3, 3, valid=1),
    HALVE,
)
BLOCKS: dict[str, tuple[Any, ...]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _BLOCK_B,
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _BLOCK_D,
    "Mixed_7b": _block_e(AVERAGE),
    "Mixed_7c": _block_e(MAXIMUM),
}


def convolution_names() -> list[str]:
    """Every convolution's place, "Mixed_5b/branch1x1", in the network's order."""
    names = [layer[0] for layer in STEM if layer != HALVE]
    for block, branches in BLOCKS.items():
        for branch in branches:
            for layer in branch:
                if isinstance(layer, str):
                    continue
                fork = layer if isinstance(layer[0], tuple) else (layer,)
                names += [f"{block}/{one[0]}" for one in fork]
    return names


def _pool(x: jax.Array, kind: str) -> jax.Array:
    if kind == HALVE:
        return nn.max_pool(x, (3, 3), (2, 2))
    padding = [(1, 1), (1, 1)]
    if kind == MAXIMUM:
        return nn.max_pool(x, (3, 3), (1, 1), padding)
    return nn.avg_pool(x, (3, 3), (1, 1), padding, count_include_pad=False)


class ConvUnit(nn.Module):
    """Convolution, BatchNorm and ReLU: `x [B, H, W, I] -> [B, h, w, features]`.

    Attributes:
      features: channels of the result.
      kernel: height and width.
      stride: of both axes.
      padding: zeros on either side of both axes.
    """

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W I"]) -> Float[jax.Array, "B h w O"]:
        x = Conv(
            self.features,
            self.kernel,
            strides=self.stride,
            padding=[(p, p) for p in self.padding],
            use_bias=False,
            name="conv",
        )(x)
        return nn.relu(BatchNorm(epsilon=1e-3, name="bn")(x))


class InceptionBlock(nn.Module):
    """Branches side by side: `x [B, H, W, I] -> [B, h, w, their channels together]`.

    Attributes:
      branches: each a sequence of convolutions, pools, and forks of two convolutions.
      divisor: as in `Inception`.
    """

    branches: tuple[Any, ...]
    divisor: int = 1

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W I"]) -> Float[jax.Array, "B h w O"]:
        results = []
        for branch in self.branches:
            y = x
            for layer in branch:
                if isinstance(layer, str):
                    y = _pool(y, layer)
                elif isinstance(layer[0], tuple):
                    y = jnp.concatenate([_unit(one, self.divisor)(y) for one in layer], axis=-1)
                else:
                    y = _unit(layer, self.divisor)(y)
            results.append(y)
        return jnp.concatenate(results, axis=-1)


class Inception(nn.Module):
    """`x [B, H, W, 3] -> features [B, 2048]`, spatial means of the last block.

    FID's images are 299 x 299, in about [-1, 1] (`inception_pixels`).

    Attributes:
      divisor: of every layer's channels; 1 is the official network.
      blocks: those of BLOCKS that there are, behind the stem.
    """

    divisor: int = 1
    blocks: Sequence[str] = tuple(BLOCKS)

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W 3"]) -> Float[jax.Array, "B D"]:
        """See the class.

        Raises:
          ValueError: images are not [B, H, W, 3], or under 75 pixels.
        """
        if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < MIN_SIZE:
            raise ValueError(
                f"images: expected [B, H, W, 3] of at least {MIN_SIZE} pixels, got {x.shape}"
            )
        for layer in STEM:
            x = _pool(x, layer) if isinstance(layer, str) else _unit(layer, self.divisor)(x)
        for name in self.blocks:
            x = InceptionBlock(BLOCKS[name], self.divisor, name=name)(x)
        return x.mean(axis=(1, 2))


def _unit(layer: tuple[Any, ...], divisor: int) -> ConvUnit:
    name, features, kernel, stride, padding = layer
    return ConvUnit(max(1, features // divisor), kernel, stride, padding, name=name)
