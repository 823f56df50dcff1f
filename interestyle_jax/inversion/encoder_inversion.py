"""Inversion by an encoder as one pure function, which `Model.invert` runs and `export` writes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.inversion.refinement import refine
from interestyle_jax.inversion.resize import crop_to_shape

# Untrained generators overshoot [-1, 1] by far; a 0..255 image does worse.
LARGEST_VALUE = 50.0
RETURNED = ("all", "last", "none")

# A Flax module; Flax Linen itself stays in `models/`.
Network = Any


class Inversion(NamedTuple):
    """The refinement of a batch, one entry an iteration.

    Attributes:
      w_plus: [N, B, L, D], w_1 ... w_N.
      images: [N, B, R, R, 3], y_hat_1 ... y_hat_N, nominally in [-1, 1], not clipped; encoders of
        an input that is not square (cars) give the middle rows alone. [1, B, R, R, 3], y_hat_N,
        or None where no more was asked for.
    """

    w_plus: jax.Array
    images: jax.Array | None


def first_latent(
    w_avg: Float[jax.Array, "*L D"], generator: Network, batch_size: int
) -> Float[jax.Array, "B L D"]:
    """w_0 of the refinement: w_avg, [D] or [L, D], in every row of [B, L, D]."""
    return jnp.broadcast_to(w_avg, (batch_size, generator.num_styles, generator.w_dim))


def invert_images(
    variables: Mapping[str, Any],
    images: Float[jax.Array, "B H W 3"],
    *,
    generator: Network,
    encoder: Network,
    num_iterations: int,
    shape: tuple[int, int],
    return_images: str,
    loop: str,
    image_0: Float[jax.Array, "1 R R 3"] | None = None,
) -> Inversion:
    """Inverts images of the encoder's input size. Pure.

    Args:
      variables: of "generator" and "encoder", and "w_avg", [D] or [L, D].
      images: [B, H, W, 3] in [-1, 1]; of rows out of range, or not finite, the results are NaN.
      generator: the module G.
      encoder: the module E.
      num_iterations: N; 1 for encoders that see the image alone.
      shape: H and W, as `Model.input_shape`.
      return_images: "all", "last" or "none", as in `Model.invert`.
      loop: "unroll" or "scan", as in `refine`.
      image_0: G(w_avg) [1, R, R, 3], where it is known, cropped as the others; else computed.

    Returns:
      The refinement.
    """
    largest = jnp.abs(images).max((1, 2, 3), keepdims=True)
    images = jnp.where(largest <= LARGEST_VALUE, images, jnp.nan)

    def encode(carry, x):
        return encoder.apply(variables["encoder"], x, train=False), carry

    def synthesize(w_plus, i):
        del i
        drawn = generator.apply(variables["generator"], w_plus, "const", method="synthesize")
        return crop_to_shape(drawn, shape)

    refinement = refine(
        encode,
        synthesize,
        (images,) * num_iterations,
        first_latent(variables["w_avg"], generator, 1),
        image_0=image_0,
        # No gradient is asked for: all iterations may be scanned.
        gradient="each",
        loop=loop,
        feedback=encoder.input_channels == 6,
        last_image_only=return_images != "all",
    )
    drawn = None if return_images == "none" else refinement.images
    return Inversion(w_plus=refinement.w_plus, images=drawn)
