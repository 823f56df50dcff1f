"""The ResNet34 trunk of the encoders that invert churches, horses, cars and wild animals.

Source: ReStyle `restyle_psp_encoders.py` and torchvision `resnet.py`.
The stem has a PReLU where torchvision has ReLU, and no max-pool follows it.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jaxtyping import Float

from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.convolution import conv
from interestyle_jax.models.ir_se import PReLU, stages
from interestyle_jax.models.rematerialise import run_block


class BasicBlock(nn.Module):
    """Residual block `x [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), features]`.

    Two 3x3 convolutions with BatchNorm, the first carries the stride; ReLU after the first and
    after the sum. The shortcut is a strided 1x1 convolution with BatchNorm where the shape changes.
    """

    features: int
    stride: int = 1
    local_batch_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> Float[jax.Array, "B h w O"]:
        local = self.local_batch_norm
        y = conv(self.features, 3, self.stride, "conv_1", x.dtype)(x)
        y = nn.relu(BatchNorm(local=local, name="norm_1")(y, train=train))
        y = conv(self.features, 3, 1, "conv_2", x.dtype)(y)
        y = BatchNorm(local=local, name="norm_2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, self.stride, "shortcut_conv", x.dtype)(x)
            x = BatchNorm(local=local, name="shortcut_norm")(x, train=train)
        return nn.relu(x + y)


class ResNetTrunk(nn.Module):
    """Stem and stages of basic blocks: `x [B, H, W, C] -> one feature map a stage`.

    The stem and the first block of every stage but the first halve the size, so the map of stage s
    (from one) is [B, H / 2**s, W / 2**s, widths[s]]. Blocks are named `block_0`, `block_1`, ...
    through all stages, like the official `body`.

    Attributes:
      units: blocks in each stage.
      widths: channels of the stem, then of each stage; one more than `units`.
      remat: compute the insides of blocks again in the backward pass.
      local_batch_norm: `BatchNorm.local`.
    """

    units: Sequence[int] = (3, 4, 6, 3)
    widths: Sequence[int] = (64, 64, 128, 256, 512)
    remat: bool = False
    local_batch_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "B H W C"], *, train: bool = False
    ) -> list[Float[jax.Array, "B _ _ _"]]:
        """See the class.

        Raises:
          ValueError: the numbers of `units` and `widths` do not fit.
        """
        plan = stages(self.units, self.widths)
        x = conv(self.widths[0], 7, 2, "stem_conv", x.dtype)(x)
        x = BatchNorm(local=self.local_batch_norm, name="stem_norm")(x, train=train)
        x = PReLU(name="stem_prelu")(x)
        maps, block = [], 0
        for stage, (count, width) in enumerate(plan):
            for unit in range(count):
                stride = 2 if unit == 0 and stage > 0 else 1
                module = BasicBlock(width, stride, self.local_batch_norm, name=f"block_{block}")
                x = run_block(module, x, remat=self.remat, train=train)
                block += 1
            maps.append(x)
        return maps
