"""Interest Disentanglement, InD: the pair of section 3.3 and what the encoder makes of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.inversion.refinement import Encode, Synthesize


class Disentanglement(NamedTuple):
    """The image y = G(w_N + delta_b) [B, R, R, 3], delta_b [B, L, 512], the carry after E."""

    image: jax.Array
    delta_b: jax.Array
    carry: Any


def disentangle(
    encode: Encode,
    synthesize: Synthesize,
    image: Float[jax.Array, "B S S 3"],
    mask: Float[jax.Array, "B S S 1"],
    w_n: Float[jax.Array, "B L D"],
    *,
    carry: Any = None,
    through_w: bool = False,
    iteration: int = 0,
) -> Disentanglement:
    """Encodes a pair that differs in the uninterest region alone, and adds the delta to w_N.

    delta_b = E([I, I * mask]) should hold nothing of the interest region, so y = G(w_N + delta_b)
    should look like I there; Eq. 1 measures it.

    Args:
      encode: `(carry, x [B, S, S, 6]) -> (delta [B, L, 512], carry)`.
      synthesize: `(w_plus [B, L, 512], iteration) -> image [B, R, R, 3]`.
      image: I, sharp, [B, S, S, 3] in [-1, 1].
      mask: interest mask, [B, S, S, 1] in [0, 1].
      w_n: w_N, [B, L, 512].
      carry: handed to `encode`.
      through_w: let gradients flow into w_N; the released code holds it constant.
      iteration: the number that `synthesize` gets.

    Returns:
      A `Disentanglement`.
    """
    delta_b, carry = encode(carry, jnp.concatenate([image, image * mask], axis=-1))
    w = (w_n if through_w else jax.lax.stop_gradient(w_n)) + delta_b
    return Disentanglement(synthesize(w, iteration), delta_b, carry)
