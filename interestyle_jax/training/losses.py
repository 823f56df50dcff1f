"""The encoder's losses: L_Image, Eq. 1 (interest disentanglement) and Eq. 3 (the sum).

All are per picture, [B]; the training step takes their mean. Source: sections 3.3 and 3.5 of the
paper, and the released coach (golden/NOTES.md sections 1 and 6).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from interestyle_jax.errors import InputError

TERMS = ("l2", "lpips", "id")

Distance = Callable[[jax.Array, jax.Array], jax.Array]
Embed = Callable[[jax.Array], jax.Array]


def l2(image: jax.Array, y_hat: jax.Array) -> jax.Array:
    """Mean squared difference over all pixels and channels: [B, H, W, 3] twice -> [B]."""
    return jnp.mean(jnp.square(image - y_hat), axis=(1, 2, 3))


def identity(embed: Embed, image: jax.Array, y_hat: jax.Array) -> jax.Array:
    """1 - <E(y_hat), E(image)>, the latter constant: [B, H, W, 3] twice -> [B]."""
    target = jax.lax.stop_gradient(embed(image))
    return 1 - jnp.sum(target * embed(y_hat), axis=-1)


@dataclasses.dataclass(frozen=True)
class ImageLoss:
    """L_Image: the weighted sum of L2, LPIPS and identity (section 3.1).

    Attributes:
      weights: {"l2", "lpips", "id"}: factors; a term of weight 0 is not computed.
      lpips: `(a, b) -> [B]` on pictures [B, H, W, 3] in [-1, 1]; None leaves the term out.
      embed: `pictures -> unit vectors [B, D]`, with its own cropping and resizing; None leaves the
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
        self, image: jax.Array, y_hat: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """L_Image(I * I_mask, y_hat * I_mask), the first form of the loss in Eq. 1 and Eq. 3.

        Args:
          image: I, [B, H, W, 3] in [-1, 1].
          y_hat: [B, H, W, 3].
          mask: [B, H, W, 1] in [0, 1], multiplied into both before every term, so that LPIPS and
            identity see mid-grey outside and L2 stays a mean over all pixels; None is the whole
            picture (ReStyle, pSp).

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
    image_loss: ImageLoss, image: jax.Array, y_hat: jax.Array, mask: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Eq. 1: L_InD = L_Image(I * I_mask, y_hat * I_mask), with y_hat = G(w_N + delta_b).

    Shapes and results as `ImageLoss.__call__`.
    """
    return image_loss(image, y_hat, mask)


def total_loss(
    image_term: jax.Array, disentanglement_term: jax.Array, disentangle_weight: float
) -> jax.Array:
    """Eq. 3: L_total = L_Image(I * I_mask, y_hat_N * I_mask) + lambda * L_InD; any shape."""
    return image_term + disentangle_weight * disentanglement_term
