"""MTCNN's three networks: proposals on a whole image (P), and two rounds of refinement (R, O).

Offsets are shifts of a box's x1, y1, x2, y2 in units of its size; landmarks are five x, then five
y, from the box's upper left corner in units of its size. Images are RGB,
(value - 127.5) / 128.

Source: the `mtcnn_pytorch` that the official ID metric carries.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jaxtyping import Float

from interestyle_jax.models.ir_se import PReLU
from interestyle_jax.models.products import Conv, Dense


def ceil_max_pool(x: Float[jax.Array, "B H W C"], window: int) -> Float[jax.Array, "B h w C"]:
    """Max-pool of stride 2 over `x [B, H, W, C]` whose last window may reach over the edge.

    -> [B, ceil((H - window) / 2) + 1, ceil((W - window) / 2) + 1, C], PyTorch's `ceil_mode=True`.
    """
    over = [(0, (side - window) % 2) for side in x.shape[1:3]]
    return nn.max_pool(x, (window, window), (2, 2), over)


def _features(x: jax.Array, widths: Sequence[int], kernels: Sequence[int], pools: Sequence[int]):
    """Valid convolutions with PReLU, each followed by a max-pool where `pools` has a window."""
    for i, (width, kernel, pool) in enumerate(zip(widths, kernels, pools, strict=True)):
        x = Conv(width, (kernel, kernel), padding="VALID", name=f"conv_{i}")(x)
        x = PReLU(name=f"prelu_{i}")(x)
        x = ceil_max_pool(x, pool) if pool else x
    return x


class PNet(nn.Module):
    """Proposals: `x [B, H, W, 3] -> offsets [B, h, w, 4], probabilities [B, h, w, 2]`.

    Cell (i, j) sees the 12x12 pixels from (2i, 2j). The second probability is the face's. The
    softmax runs over the **width** axis, not over the two classes, as the official code has it;
    the official thresholds go with that.

    Attributes:
      widths: channels of the three convolutions.
    """

    widths: Sequence[int] = (10, 16, 32)

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W 3"]
    ) -> tuple[Float[jax.Array, "B h w 4"], Float[jax.Array, "B h w 2"]]:
        x = _features(x, self.widths, (3, 3, 3), (2, 0, 0))
        classes = Conv(2, (1, 1), name="classes")(x)
        return Conv(4, (1, 1), name="offsets")(x), nn.softmax(classes, axis=2)


class RNet(nn.Module):
    """First refinement: `x [B, 24, 24, 3] -> offsets [B, 4], probabilities [B, 2]`.

    Attributes:
      widths: channels of the three convolutions and of the dense layer.
    """

    widths: Sequence[int] = (28, 48, 64, 128)

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B 24 24 3"]
    ) -> tuple[Float[jax.Array, "B 4"], Float[jax.Array, "B 2"]]:
        _check_side(x, 24)
        x = _features(x, self.widths[:-1], (3, 3, 2), (3, 3, 0))
        x = Dense(self.widths[-1], name="dense")(x.reshape(x.shape[0], -1))
        x = PReLU(name="dense_prelu")(x)
        return Dense(4, name="offsets")(x), nn.softmax(Dense(2, name="classes")(x))


class ONet(nn.Module):
    """Second: `x [B, 48, 48, 3] -> landmarks [B, 10], offsets [B, 4], probabilities [B, 2]`.

    Attributes:
      widths: channels of the four convolutions and of the dense layer.
    """

    widths: Sequence[int] = (32, 64, 64, 128, 256)

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B 48 48 3"]
    ) -> tuple[Float[jax.Array, "B 10"], Float[jax.Array, "B 4"], Float[jax.Array, "B 2"]]:
        _check_side(x, 48)
        x = _features(x, self.widths[:-1], (3, 3, 3, 2), (3, 3, 2, 0))
        x = Dense(self.widths[-1], name="dense")(x.reshape(x.shape[0], -1))
        x = PReLU(name="dense_prelu")(x)
        probabilities = nn.softmax(Dense(2, name="classes")(x))
        return Dense(10, name="landmarks")(x), Dense(4, name="offsets")(x), probabilities


def _check_side(x: jax.Array, side: int) -> None:
    if x.ndim != 4 or x.shape[1:] != (side, side, 3):
        raise ValueError(f"patches: expected [B, {side}, {side}, 3], got {x.shape}")
