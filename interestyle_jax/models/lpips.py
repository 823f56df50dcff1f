"""LPIPS v0.1, the perceptual distance of Zhang et al. 2018 (arXiv:1801.03924)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.products import Conv, matmul

# Constants of the LPIPS v0.1 scaling layer, for images in [-1, 1].
INPUT_MEAN = (-0.030, -0.088, -0.188)
INPUT_STD = (0.458, 0.448, 0.450)
NORMALIZE_EPS = 1e-10

# A layer is (features, kernel size, stride, padding); "pool" is the network's own max-pool.
# Positions follow torchvision's `features` modules; every ReLU listed in TAPS is compared.
POOL = "pool"
LAYERS = {
    "alex": (
        (64, 11, 4, 2), POOL, (192, 5, 1, 2), POOL,
        (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1),
    ),
    "vgg": (
        (64, 3, 1, 1), (64, 3, 1, 1), POOL, (128, 3, 1, 1), (128, 3, 1, 1), POOL,
        (256, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), POOL,
        (512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1), POOL,
        (512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1),
    ),
}  # fmt: skip
POOL_WINDOW = {"alex": 3, "vgg": 2}
# VGG16's convolutions by the names that papers use, in the order of their indices.
VGG_NAMES = tuple(
    f"conv{block}_{i}"
    for block, count in enumerate((2, 2, 3, 3, 3), 1)
    for i in range(1, count + 1)
)
# Indices of the convolutions whose ReLU outputs are compared.
TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}
# Smallest image side for which every pooled map keeps at least one position.
MIN_SIZE = {"alex": 31, "vgg": 16}


def convolutions(network: str) -> tuple[tuple[int, int, int, int], ...]:
    """The convolutions of a trunk in order, each (features, kernel size, stride, padding)."""
    return tuple(layer for layer in LAYERS[network] if not isinstance(layer, str))


def tap_widths(network: str) -> tuple[int, ...]:
    """Channels of each compared feature map, (64, 192, 384, 256, 256) for AlexNet."""
    widths = convolutions(network)
    return tuple(widths[i][0] for i in TAPS[network])


def normalize_channels(x: Float[jax.Array, "B h w C"]) -> Float[jax.Array, "B h w C"]:
    """Unit vectors over channels, x / (||x||_2 + 1e-10); x [B, h, w, C]. Zero vectors stay zero.

    The gradient at a zero vector is zero: the plain formula has NaN there, and such vectors are
    usual where a mask blanks the image.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    positive = square > 0
    norm = jnp.sqrt(jnp.where(positive, square, 1.0))
    return jnp.where(positive, x / (norm + NORMALIZE_EPS), 0.0)


class LPIPS(nn.Module):
    """Perceptual distance of two images on the ReLU features of AlexNet or VGG16.

    Attributes:
      network: 'alex' or 'vgg' (torchvision's AlexNet and VGG16 up to the last convolution).
      dtype: type of the convolutions' arithmetic, e.g. bfloat16; None takes that of the images
        and parameters together. The distance itself is summed in float32 or wider.

    Parameters: `conv_{i}` {kernel [kh, kw, I, O], bias [O]} for every convolution in order and
    `head_{k}` [C_k], the non-negative weight of each channel of compared map k.
    """

    network: str = "alex"
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        if self.network not in LAYERS:
            raise ValueError(f"LPIPS network is {self.network!r}, expected 'alex' or 'vgg'")
        self.conv = [
            Conv(
                features, (size, size), strides=stride, padding=padding, dtype=self.dtype,
                name=f"conv_{i}",
            )
            for i, (features, size, stride, padding) in enumerate(convolutions(self.network))
        ]  # fmt: skip
        self.head = [
            self.param(f"head_{k}", nn.initializers.constant(1.0 / width), (width,))
            for k, width in enumerate(tap_widths(self.network))
        ]

    def features(
        self, x: Float[jax.Array, "B H W 3"], *, taps: Sequence[int] | None = None
    ) -> list[Float[jax.Array, "B _ _ _"]]:
        """The compared ReLU maps, not normalised.

        Args:
          x: [B, H, W, 3] in [-1, 1].
          taps: indices of the convolutions whose ReLU maps come back, in order; None: TAPS.

        Returns:
          A list of [B, h, w, C], the shallowest first.

        Raises:
          ValueError: images under 31 px (alex) or 16 px (vgg), whose maps would be empty.
        """
        if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < MIN_SIZE[self.network]:
            raise ValueError(
                f"LPIPS ({self.network}) got images of shape {x.shape}, expected [B, H, W, 3] "
                f"with H and W at least {MIN_SIZE[self.network]}"
            )
        x = (x - jnp.asarray(INPUT_MEAN, x.dtype)) / jnp.asarray(INPUT_STD, x.dtype)
        taps = TAPS[self.network] if taps is None else taps
        window = POOL_WINDOW[self.network]
        maps = []
        index = 0
        for layer in LAYERS[self.network]:
            if layer == POOL:
                x = nn.max_pool(x, (window, window), strides=(2, 2))
                continue
            x = nn.relu(self.conv[index](x))
            if index in taps:
                maps.append(x)
            # What lies behind the last map is not needed.
            if index == max(taps):
                break
            index += 1
        return maps

    def compare(
        self,
        features_a: Sequence[Float[jax.Array, "B _ _ _"]],
        features_b: Sequence[Float[jax.Array, "B _ _ _"]],
    ) -> Float[jax.Array, " B"]:
        """Distance of two images whose `features` are known -> [B]."""
        return sum(self.compare_layers(features_a, features_b))  # type: ignore[return-value]

    def compare_layers(
        self,
        features_a: Sequence[Float[jax.Array, "B _ _ _"]],
        features_b: Sequence[Float[jax.Array, "B _ _ _"]],
    ) -> list[Float[jax.Array, " B"]]:
        """Each map's share of the distance, a list of [B] whose sum is the distance."""
        shares = []
        for a, b, weight in zip(features_a, features_b, self.head, strict=True):
            wide = jnp.promote_types(a.dtype, jnp.float32)
            a, b = normalize_channels(a.astype(wide)), normalize_channels(b.astype(wide))
            shares.append(jnp.mean(matmul(jnp.square(a - b), weight), axis=(1, 2)))
        return shares

    def vectors(self, x: Float[jax.Array, "B H W 3"]) -> list[Float[jax.Array, "B _ _ _"]]:
        """Arrays [B, h, w, C] whose squared distances, added up, are the distance of two images."""
        return [
            normalize_channels(maps) * jnp.sqrt(weight / (maps.shape[1] * maps.shape[2]))
            for maps, weight in zip(self.features(x), self.head, strict=True)
        ]

    def __call__(
        self, a: Float[jax.Array, "B H W 3"], b: Float[jax.Array, "B H W 3"]
    ) -> Float[jax.Array, " B"]:
        """Distance of every pair -> [B]; a and b [B, H, W, 3] in [-1, 1].

        The two trunks run apart, so that a gradient in `a` alone costs no backward pass in `b`.
        """
        return self.compare(self.features(a), self.features(b))
