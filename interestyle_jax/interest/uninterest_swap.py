"""Uninterest swap: another image's surroundings, with the same target.

Beyond the paper. An inversion that depends on the interest region alone must not change when the
rest of the image does; training images whose rest comes from another image say so.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.errors import InputError


def swap_uninterest(
    key: PRNGKeyArray,
    image: Float[jax.Array, "B H W 3"],
    mask: Float[jax.Array, "B H W 1"],
    *,
    share: float,
) -> Float[jax.Array, "B H W 3"]:
    """I' = I * mask + J * (1 - mask) in a share of the samples; J is the next image of the batch.

    Args:
      key: draws which samples are swapped.
      image: I, [B, H, W, 3] in [-1, 1].
      mask: interest mask, [B, H, W, 1] in [0, 1].
      share: probability of a swap for each sample, in [0, 1]; 0 gives `image` itself.

    Returns:
      [B, H, W, 3]. A batch of one stays as it is.

    Raises:
      InputError: a share outside [0, 1], or a mask of another size.
    """
    if not 0 <= share <= 1:
        raise InputError(f"swap: expected a share in [0, 1], got {share}")
    if image.ndim != 4 or mask.shape != (*image.shape[:3], 1):
        raise InputError(f"mask: expected {(*image.shape[:3], 1)}, got {mask.shape}")
    if not share:
        return image
    swapped = jax.random.bernoulli(key, share, (image.shape[0], 1, 1, 1))
    return jnp.where(swapped, _with_next_surroundings(image, mask), image)


def swapped_pairs(
    image: Float[jax.Array, "B H W 3"], mask: Float[jax.Array, "B H W 1"]
) -> tuple[
    Float[jax.Array, "2*B H W 3"], Float[jax.Array, "2*B H W 3"], Float[jax.Array, "2*B H W 1"]
]:
    """Every image twice, as it is and swapped, in rows 2i and 2i + 1.

    Args:
      image: I, [B, H, W, 3] in [-1, 1].
      mask: interest mask, [B, H, W, 1] in [0, 1].

    Returns:
      What the encoder sees, I and I' in turn; I and its mask, each row twice.
    """
    seen = jnp.stack([image, _with_next_surroundings(image, mask)], axis=1)
    return seen.reshape(-1, *image.shape[1:]), jnp.repeat(image, 2, 0), jnp.repeat(mask, 2, 0)


def _with_next_surroundings(image: jax.Array, mask: jax.Array) -> jax.Array:
    return image * mask + jnp.roll(image, -1, axis=0) * (1 - mask)
