"""The encoder's losses: L_Image, Eq. 1 (interest disentanglement) and Eq. 3 (the sum).

All are per image, [B]; the training step takes their mean. Source: sections 3.3 and 3.5 of the
paper, and the released `coach.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.distance import Distance, l2
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop

TERMS = ("l2", "lpips", "id")

Embed = Callable[[jax.Array], jax.Array]


def w_norm(
    w_plus: Float[jax.Array, "B L D"], w_avg: Float[jax.Array, "*avg"]
) -> Float[jax.Array, " B"]:
    """Frobenius norm of w_plus - w_avg; keeps latents near the mean, where editing works.

    Args:
      w_plus: [B, L, D].
      w_avg: [D], [L, D] or [1, L, D].

    Returns:
      [B]; its gradient at w_avg itself, where training begins, is 0. Source: the official
      `w_norm.py` with `start_from_latent_avg`.
    """
    squares = jnp.sum(jnp.square(w_plus - w_avg), axis=(1, 2))
    away = squares > 0
    return jnp.where(away, jnp.sqrt(jnp.where(away, squares, 1.0)), 0.0)


def embed_with(
    embedder: Any, variables: Mapping[str, Any], *, dtype: jnp.dtype | None = None
) -> Embed:
    """`embed` of an `ImageLoss` from an embedder's module and variables.

    A `FaceEmbedder` sees `id_crop` of the images. Other embedders (MoCo) see them whole, and
    resize them themselves. `dtype` is the type of its maps (None: float32); vectors are float32.
    """

    def embed(images: jax.Array) -> jax.Array:
        if isinstance(embedder, FaceEmbedder):
            images = id_crop(images, size=embedder.input_size)
        return embedder.apply(variables, images if dtype is None else images.astype(dtype))

    return embed


def identity(
    embed: Embed, image: Float[jax.Array, "B H W 3"], y_hat: Float[jax.Array, "B H W 3"]
) -> Float[jax.Array, " B"]:
    """1 - <E(y_hat), E(image)>, the latter constant: [B, H, W, 3] twice -> [B]."""
    target = jax.lax.stop_gradient(embed(image))
    return 1 - jnp.sum(target * embed(y_hat), axis=-1)


@dataclasses.dataclass(frozen=True)
class ImageLoss:
    """L_Image: the weighted sum of L2, LPIPS and identity (section 3.1).

    Attributes:
      weights: {"l2", "lpips", "id"}: factors; a term of weight 0 is not computed.
      lpips: `(a, b) -> [B]` on images [B, H, W, 3] in [-1, 1]; None leaves the term out.
      embed: `images -> unit vectors [B, D]`, with its own cropping and resizing; None leaves the
        identity term out.

    Raises:
      InputError: a weight of an unknown term, or below 0.
    """

    weights: Mapping[str, float]
    lpips: Distance | None = None
    embed: Embed | None = None

    def __post_init__(self):
        for name, weight in self.weights.items():
            if name not in TERMS:
                raise InputError(f"loss.{name}: unknown term, expected some of {', '.join(TERMS)}")
            if not weight >= 0:
                raise InputError(f"loss.{name}: expected a weight from 0, got {weight}")

    def __call__(
        self,
        image: Float[jax.Array, "B H W 3"],
        y_hat: Float[jax.Array, "B H W 3"],
        mask: Float[jax.Array, "B H W 1"] | None,
    ) -> tuple[Float[jax.Array, " B"], dict[str, Float[jax.Array, " B"]]]:
        """L_Image(I * I_mask, y_hat * I_mask), the first form of the loss in Eq. 1 and Eq. 3.

        Args:
          image: I, [B, H, W, 3] in [-1, 1].
          y_hat: [B, H, W, 3].
          mask: [B, H, W, 1] in [0, 1], multiplied into both before every term, so that LPIPS and
            identity see mid-grey outside and L2 stays a mean over all pixels; None is the whole
            image (ReStyle, pSp).

        Returns:
          The sum [B], and its unweighted parts {term: [B]}.
        """
        if mask is not None:
            image, y_hat = image * mask, y_hat * mask
        parts = {}
        if self.weights.get("l2"):
            parts["l2"] = l2(image, y_hat)
        if self.weights.get("lpips") and self.lpips is not None:
            parts["lpips"] = self.lpips(image, y_hat)
        if self.weights.get("id") and self.embed is not None:
            parts["id"] = identity(self.embed, image, y_hat)
        total = sum((self.weights[k] * v for k, v in parts.items()), jnp.zeros(image.shape[0]))
        return total, parts


def disentanglement_loss(
    image_loss: ImageLoss,
    image: Float[jax.Array, "B H W 3"],
    y_hat: Float[jax.Array, "B H W 3"],
    mask: Float[jax.Array, "B H W 1"],
) -> tuple[Float[jax.Array, " B"], dict[str, Float[jax.Array, " B"]]]:
    """Eq. 1: L_InD = L_Image(I * I_mask, y_hat * I_mask), with y_hat = G(w_N + delta_b).

    Shapes and results as `ImageLoss.__call__`.
    """
    return image_loss(image, y_hat, mask)


def total_loss(
    image_term: Float[jax.Array, "*B"],
    disentanglement_term: Float[jax.Array, "*B"],
    disentangle_weight: float,
) -> Float[jax.Array, "*B"]:
    """Eq. 3: L_total = L_Image(I * I_mask, y_hat_N * I_mask) + lambda * L_InD; any shape."""
    return image_term + disentangle_weight * disentanglement_term
