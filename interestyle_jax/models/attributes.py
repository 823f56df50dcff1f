"""A small network that reads from an image what it shows: attributes, numbers and regions.

A U-Net for images of one known world, such as the avatars': the way down ends in the attributes,
the way up in the regions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.products import Conv, Dense

SLOPE = 0.2


class Read(NamedTuple):
    """What an `AttributeNetwork` reads.

    Attributes:
      kinds: logits [B, sum of the attributes' kinds], one attribute after the other.
      numbers: [B, len(numbers)].
      regions: logits [B, H, W, len(regions)], each of its own.
    """

    kinds: Float[jax.Array, "B K"]
    numbers: Float[jax.Array, "B M"]
    regions: Float[jax.Array, "B H W R"]


class AttributeNetwork(nn.Module):
    """`images [B, resolution, resolution, 3] in [-1, 1] -> Read`.

    Attributes:
      resolution: height and width of the images, a multiple of the smallest map's pixel.
      attributes: (name, its kinds) for each attribute that has one of several.
      numbers: names of what is a number.
      regions: names of what is a mask.
      widths: channels at full size, a half, a quarter, ...
    """

    resolution: int
    attributes: Sequence[tuple[str, Sequence[str]]]
    numbers: Sequence[str] = ()
    regions: Sequence[str] = ()
    widths: Sequence[int] = (16, 32, 64, 96, 128)

    @nn.compact
    def __call__(self, images: Float[jax.Array, "B H W 3"]) -> Read:
        """See the class.

        Raises:
          ValueError: images of another size, or a resolution that cannot be halved so often.
        """
        if images.shape[1:] != (self.resolution, self.resolution, 3):
            expected = f"[B, {self.resolution}, {self.resolution}, 3]"
            raise ValueError(f"images: expected {expected}, got {images.shape}")
        if self.resolution % (least := 2 ** (len(self.widths) - 1)):
            raise ValueError(f"resolution: expected a multiple of {least}, got {self.resolution}")

        def conv(x, width, name, stride=1):
            x = Conv(width, (3, 3), (stride, stride), name=name)(x)
            return nn.leaky_relu(nn.GroupNorm(num_groups=8, name=f"{name}_norm")(x), SLOPE)

        x = conv(images, self.widths[0], "stem")
        maps = [x]
        for i, width in enumerate(self.widths[1:]):
            x = conv(x, width, f"down_{i}", 2)
            x = x + conv(x, width, f"more_{i}")
            maps.append(x)
        # Where a feature lies says which one it is: no mean over places.
        flat = x.reshape(len(x), -1)
        h = nn.leaky_relu(Dense(256, name="hidden")(flat), SLOPE)
        kinds = Dense(sum(len(kinds) for _, kinds in self.attributes), name="kinds")(h)
        numbers = Dense(len(self.numbers), name="numbers")(h)
        for i, (below, width) in enumerate(zip(maps[-2::-1], self.widths[-2::-1], strict=True)):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = conv(jnp.concatenate([x, below], axis=-1), width, f"up_{i}")
        return Read(kinds, numbers, Conv(len(self.regions), (1, 1), name="regions")(x))
