"""MoCo v2's ResNet50 as an embedder: likeness of images that are no faces.

Source: ReStyle's and e4e's `moco_loss.py` and torchvision's `resnet.py`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.convolution import conv

EXPANSION = 4
NORMALIZE_EPS = 1e-12


def nearest_resize(images: Float[jax.Array, "B H W C"], size: int) -> Float[jax.Array, "B h w C"]:
    """[B, H, W, C] -> [B, size, size, C], taking pixel floor(i * H / size) for row i.

    PyTorch's "nearest", which takes another pixel than half-pixel centres do at 128 of the 224
    positions of 256 -> 224.
    """
    rows, columns = (jnp.arange(size) * images.shape[axis] // size for axis in (1, 2))
    return images[:, rows][:, :, columns]


class Bottleneck(nn.Module):
    """Residual block `x [B, H, W, I] -> [B, ceil(H/stride), ceil(W/stride), 4 * features]`.

    1x1, 3x3 (which carries the stride) and 1x1 convolutions, each with BatchNorm, ReLU after the
    first two and after the sum. The shortcut is a strided 1x1 convolution with BatchNorm where
    the shape changes, else x.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B H W I"]) -> Float[jax.Array, "B h w O"]:
        width = EXPANSION * self.features
        y = nn.relu(BatchNorm(name="norm_1")(conv(self.features, 1, 1, "conv_1", x.dtype)(x)))
        y = nn.relu(
            BatchNorm(name="norm_2")(conv(self.features, 3, self.stride, "conv_2", y.dtype)(y))
        )
        y = BatchNorm(name="norm_3")(conv(width, 1, 1, "conv_3", y.dtype)(y))
        if self.stride != 1 or x.shape[-1] != width:
            x = conv(width, 1, self.stride, "shortcut_conv", x.dtype)(x)
            x = BatchNorm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class MocoEmbedder(nn.Module):
    """`images [B, H, W, 3] in [-1, 1] -> unit vectors [B, 2048]`.

    Images are resized to `input_size` by `nearest_resize` and go through ResNet50 up to the
    global mean; no ImageNet mean or deviation is applied, as in the official loss. Statistics are
    always the running ones.

    Attributes:
      units: blocks in each stage.
      width: channels of the stem and of the first stage's inner convolutions; doubles a stage.
      input_size: the side that images are resized to.
    """

    units: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    input_size: int = 224

    @nn.compact
    def __call__(self, images: Float[jax.Array, "B H W 3"]) -> Float[jax.Array, "B D"]:
        """See the class.

        Raises:
          ValueError: images are not [B, H, W, 3].
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images: expected [B, H, W, 3], got {images.shape}")
        x = nearest_resize(images, self.input_size)
        x = conv(self.width, 7, 2, "stem_conv", x.dtype)(x)
        x = nn.relu(BatchNorm(name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        block = 0
        for stage, count in enumerate(self.units):
            for unit in range(count):
                stride = 2 if unit == 0 and stage > 0 else 1
                x = Bottleneck(self.width << stage, stride, name=f"block_{block}")(x)
                block += 1
        x = x.mean(axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x / jnp.maximum(norm, NORMALIZE_EPS)
