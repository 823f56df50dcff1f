"""Face embedders: an aligned face to the unit vector that says whose it is.

Source: `model_irse.py` `Backbone` (ArcFace IR-SE50, CurricularFace IR-101).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.models.batch_norm import BatchNorm
from interestyle_jax.models.ir_se import IRTrunk
from interestyle_jax.models.products import Dense


class FaceEmbedder(nn.Module):
    """IR trunk and output layer: `faces [B, S, S, 3] in [-1, 1] -> unit vectors [B, dim]`.

    The output layer is BatchNorm, a dense layer over the last map (flattened as rows, columns,
    channels), and BatchNorm. Statistics are always the running ones: the network is frozen wherever
    it is used. The defaults are ArcFace IR-SE50; CurricularFace IR-101 is `units=(3, 13, 30, 3)`
    with `squeeze_excitation` and `affine_output` off.

    Attributes:
      units: blocks in each stage of the trunk.
      widths: channels of the stem, then of each stage.
      squeeze_excitation: IR-SE where true, plain IR where false.
      affine_output: whether the last BatchNorm has a scale and a bias.
      dim: length of the vectors.
      input_size: S, which the dense layer is bound to; 112 in all official files.
      remat: compute the insides of blocks again in the backward pass.
    """

    units: Sequence[int] = (3, 4, 14, 3)
    widths: Sequence[int] = (64, 64, 128, 256, 512)
    squeeze_excitation: bool = True
    affine_output: bool = True
    dim: int = 512
    input_size: int = 112
    remat: bool = False

    @nn.compact
    def __call__(self, faces: Float[jax.Array, "B S S 3"]) -> Float[jax.Array, "B D"]:
        """See the class.

        Raises:
          ValueError: faces of another shape.
        """
        size = self.input_size
        if faces.ndim != 4 or faces.shape[1:] != (size, size, 3):
            raise ValueError(f"faces: expected [B, {size}, {size}, 3], got {faces.shape}")
        trunk = IRTrunk(
            self.units, self.widths, self.squeeze_excitation, remat=self.remat, name="trunk"
        )
        x = BatchNorm(name="output_norm")(trunk(faces)[-1])
        x = x.reshape(x.shape[0], -1).astype(jnp.promote_types(x.dtype, jnp.float32))
        x = Dense(self.dim, name="output_dense")(x)
        x = BatchNorm(affine=self.affine_output, name="embedding_norm")(x)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
