"""A small network that reads from an image what it shows: attributes, numbers and regions.

For images of one known world, such as the avatars': the way down ends in the attributes; its maps,
summed from the smallest on, in the regions.
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
      widths: channels at a half of the size, a quarter, ...; the sums of maps have the first.
    """

    resolution: int
    attributes: Sequence[tuple[str, Sequence[str]]]
    numbers: Sequence[str] = ()
    regions: Sequence[str] = ()
    widths: Sequence[int] = (24, 48, 96, 96)

    @nn.compact
    def __call__(self, images: Float[jax.Array, "B H W 3"]) -> Read:
        """See the class.

        Raises:
          ValueError: images of another size, or a resolution that cannot be halved so often.
        """
        if images.shape[1:] != (self.resolution, self.resolution, 3):
            expected = f"[B, {self.resolution}, {self.resolution}, 3]"
            raise ValueError(f"images: expected {expected}, got {images.shape}")
        if self.resolution % (least := 2 ** len(self.widths)):
            raise ValueError(f"resolution: expected a multiple of {least}, got {self.resolution}")

        def conv(x, width, name, size=3, stride=1):
            x = Conv(width, (size, size), (stride, stride), name=name)(x)
            return nn.leaky_relu(nn.GroupNorm(num_groups=8, name=f"{name}_norm")(x), SLOPE)

        x = conv(images, self.widths[0], "stem", 4, 2)
        maps = [x]
        for i, width in enumerate(self.widths[1:]):
            x = conv(x, width, f"down_{i}", stride=2)
            x = x + conv(x, width, f"more_{i}")
            maps.append(x)
        # Where a feature lies says which one it is: no mean over places.
        flat = x.reshape(len(x), -1)
        h = nn.leaky_relu(Dense(128, name="hidden")(flat), SLOPE)
        kinds = Dense(sum(len(kinds) for _, kinds in self.attributes), name="kinds")(h)
        numbers = Dense(len(self.numbers), name="numbers")(h)
        width = self.widths[0]
        x = Dense(width, name="top")(x)
        for i, below in enumerate(maps[-2::-1]):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = conv(x + Dense(width, name=f"lateral_{i}")(below), width, f"up_{i}")
        # Four pixels of full size for each of half the size.
        x = Dense(4 * len(self.regions), name="regions")(x)
        batch, height, length = x.shape[:3]
        x = x.reshape(batch, height, length, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
        return Read(kinds, numbers, x.reshape(batch, 2 * height, 2 * length, -1))
