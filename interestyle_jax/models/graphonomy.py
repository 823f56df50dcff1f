"""Graphonomy: human parsing into CIHP's 20 labels, the paper's source of interest masks.

DeepLabv3+ over aligned Xception, then a step of reasoning over two label graphs. The checkpoint is
"CIHP_pretrained" ("inference.pth"). Statistics are always the running ones.
Source: Gong et al., *Graphonomy: Universal Human Parsing via Graph Transfer Learning*, CVPR 2019.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models import graphonomy_graphs as graphs
from interestyle_jax.models import xception
from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.convolution import conv
from interestyle_jax.models.corner_resize import interpolation, resize_by, resize_corners
from interestyle_jax.models.products import Conv, Dense, einsum, matmul

LABELS = (
    "background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks",
    "pants", "torso skin", "scarf", "skirt", "face", "left arm", "right arm", "left leg",
    "right leg", "left shoe", "right shoe",
)  # fmt: skip
# Left and right change places in a mirrored image.
MIRRORED = (*range(14), 15, 14, 17, 16, 19, 18)
DILATIONS = (6, 12, 18)
NORMALIZE_EPS = 1e-12


class GraphReasoning(nn.Module):
    """What the label graphs add to every pixel: `features [B, H, W, C] -> [B, C]`.

    Pixels gather in nodes, a sum, so nodes grow with the image. The 7 source nodes pass three
    graph layers, of which **the last two share one kernel**, as the official forward pass has it;
    after each of them the 20 target nodes read them by likeness and by the fixed transfer table,
    and pass a layer of their own.

    The way back would weigh the nodes for each pixel by a softmax over pixel score + node score.
    The pixel's score is the same for all nodes and cancels, so every pixel receives one vector:
    no [pixels, nodes, C] array is needed, and the official `node_fea_for_res` has no influence.

    Attributes:
      hidden: channels of a node.
    """

    hidden: int = 128

    @nn.compact
    def __call__(self, features: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B C"]:
        batch, height, width, channels = features.shape
        pixels = features.reshape(batch, height * width, channels)
        source = self._nodes(pixels, "source", graphs.SOURCE_NODES)
        sources = []
        second = _dense(self.hidden, "source_layer_2")
        for layer in (_dense(self.hidden, "source_layer_1"), second, second):
            source = nn.relu(matmul(graphs.SOURCE_ADJACENCY, layer(source)))
            sources.append(source)
        target = self._nodes(pixels, "target", graphs.TARGET_NODES)
        transfer = _dense(self.hidden, "transfer")
        merge = _dense(self.hidden, "merge")
        for i, source in enumerate(sources, 1):
            moved = nn.relu(matmul(graphs.TRANSFER, transfer(source)))
            joined = jnp.concatenate([target, by_likeness(target, source), moved], axis=-1)
            target = _dense(self.hidden, f"target_layer_{i}")(nn.relu(merge(joined)))
            target = nn.relu(matmul(graphs.TARGET_ADJACENCY, target))
        share = nn.softmax(_dense(1, "node_score")(target), axis=1)
        return nn.relu(jnp.sum(share * _dense(channels, "node_features")(target), axis=1))

    def _nodes(self, pixels: jax.Array, name: str, count: int) -> jax.Array:
        """[B, P, C] -> [B, count, hidden]: each pixel is shared out over the nodes."""
        share = nn.softmax(_dense(count, f"{name}_share")(pixels), axis=-1)
        gathered = einsum("bpn,bpc->bnc", share, pixels)
        return nn.relu(_dense(self.hidden, f"{name}_nodes")(gathered))


def _dense(features: int, name: str) -> Dense:
    return Dense(features, use_bias=False, name=name)


def by_likeness(
    target: Float[jax.Array, "B T C"], source: Float[jax.Array, "B S C"]
) -> Float[jax.Array, "B T C"]:
    """[B, T, C], [B, S, C] -> [B, T, C]: sources weighed by a softmax of the cosine likeness."""

    def unit(x):
        norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x / jnp.maximum(norm, NORMALIZE_EPS)

    likeness = einsum("btc,bsc->bts", unit(target), unit(source))
    return matmul(nn.softmax(likeness, axis=-1), source)


class Graphonomy(nn.Module):
    """`x [B, H, W, 3], BGR in [-1, 1] -> logits [B, H, W, 20]`, any height and width.

    Attributes:
      widths: channels of the trunk, see `xception.WIDTHS`.
      middle_blocks: see `xception.Xception`.
      features: channels of the pyramid's branches and of the decoder.
      low_level: channels of the low-level features in the decoder.
      hidden: channels of a graph node.
    """

    widths: Sequence[int] = xception.WIDTHS
    middle_blocks: int = 16
    features: int = 256
    low_level: int = 48
    hidden: int = 128

    def __call__(self, x: Float[jax.Array, "B H W 3"]) -> Float[jax.Array, "B H W 20"]:
        """See the class; the coarse logits, brought to the input's size."""
        return resize_corners(self.coarse(x), *x.shape[1:3])

    def two_sided(
        self, x: Float[jax.Array, "B H W 3"], height: int, width: int
    ) -> Float[jax.Array, "B h w 20"]:
        """Mean logits of an image and its mirror image.

        Resizing commutes with mirroring and averaging, so the official chain (to the input's size,
        mirrored back, averaged, to `height` x `width`) is two matrix products on the coarse mean.

        Args:
          x: [B, H, W, 3], BGR in [-1, 1].
          height, width: size of the result.

        Returns:
          [B, height, width, 20].
        """
        plain, mirrored = jnp.split(self.coarse(jnp.concatenate([x, x[:, :, ::-1]])), 2)
        mean = (plain + mirrored[:, :, ::-1, jnp.array(MIRRORED)]) / 2
        rows, columns = (
            interpolation(side, size) @ interpolation(coarse, side)
            for size, side, coarse in zip(
                (height, width), x.shape[1:3], mean.shape[1:3], strict=True
            )
        )
        return resize_by(mean, rows, columns)

    @nn.compact
    def coarse(self, x: Float[jax.Array, "B H W 3"]) -> Float[jax.Array, "B h w 20"]:
        """Logits [B, ceil(H/4), ceil(W/4), 20], before the last resize.

        Raises:
          ValueError: x is not [B, H, W, 3].
        """
        if x.ndim != 4 or x.shape[-1] != 3:
            raise ValueError(f"images: expected [B, H, W, 3], got {x.shape}")
        x, low_level = xception.Xception(self.widths, self.middle_blocks, name="trunk")(x)
        x = self._pyramid(x)
        x = resize_corners(x, *low_level.shape[1:3])
        low_level = self._projected(low_level, self.low_level, "low_level")
        x = jnp.concatenate([x, low_level], axis=-1)
        for i in range(2):
            x = xception.SeparableConv(self.features, relu=True, name=f"decoder_{i}")(x)
        added = GraphReasoning(self.hidden, name="graph")(x)
        x = nn.relu(Conv(self.features, (1, 1), name="skip")(x)) + added[:, None, None]
        return Conv(len(LABELS), (1, 1), name="labels")(x)

    def _pyramid(self, x: jax.Array) -> jax.Array:
        """Atrous spatial pyramid pooling: [B, h, w, C] -> [B, h, w, features]."""
        branches = [self._projected(x, self.features, "pyramid_1")]
        for dilation in DILATIONS:
            name = f"pyramid_{dilation}"
            branches.append(
                xception.SeparableConv(self.features, 1, dilation, relu=True, name=name)(x)
            )
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        mean = self._projected(mean, self.features, "pyramid_mean")
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        return self._projected(jnp.concatenate(branches, axis=-1), self.features, "pyramid")

    def _projected(self, x: jax.Array, features: int, name: str) -> jax.Array:
        """1x1 convolution, BatchNorm, ReLU."""
        x = conv(features, 1, 1, f"{name}_conv", x.dtype)(x)
        return nn.relu(BatchNorm(name=f"{name}_norm")(x))
