"""The losses of an adversarial training: non-saturating, R1, path length.

Source: StyleGAN2 (Karras et al. 2020), section 3.2 and appendix B; Mescheder et al. 2018 (R1).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray


def generator_loss(fake_logits: Float[jax.Array, " B"]) -> Float[jax.Array, ""]:
    """Non-saturating loss of G: mean softplus(-D(G(z))); logits [B] -> scalar."""
    return jax.nn.softplus(-fake_logits).mean()


def discriminator_loss(
    real_logits: Float[jax.Array, " B"], fake_logits: Float[jax.Array, " B"]
) -> Float[jax.Array, ""]:
    """Logistic loss of D: mean softplus(-D(x)) + mean softplus(D(G(z))); logits [B] -> scalar."""
    return jax.nn.softplus(-real_logits).mean() + jax.nn.softplus(fake_logits).mean()


def r1_penalty(
    judge: Callable[[jax.Array], jax.Array], images: Float[jax.Array, "B ..."]
) -> Float[jax.Array, ""]:
    """Mean over images of |dD/dx|^2, without the factor gamma / 2.

    Args:
      judge: [B, H, W, 3] -> logits [B].
      images: real images [B, H, W, 3] in [-1, 1]; or what else `judge` takes, as latents [B, D].
    """
    gradient = jax.grad(lambda x: judge(x).sum())(images)
    return jnp.square(gradient).sum(axis=tuple(range(1, gradient.ndim))).mean()


def path_lengths(
    key: PRNGKeyArray,
    synthesize: Callable[[jax.Array], jax.Array],
    w_plus: Float[jax.Array, "B L D"],
) -> Float[jax.Array, " B"]:
    """|J^T y| for random images y: how far a step in W moves the image.

    Args:
      key: draws y, standard normal divided by the image's side.
      synthesize: w_plus -> images [B, H, W, 3].
      w_plus: [B, L, D].

    Returns:
      [B]: root of the mean over rows of the squared gradient's sum.
    """

    def projection(w_plus):
        images = synthesize(w_plus)
        y = jax.random.normal(key, images.shape) / images.shape[1]
        return jnp.sum(images * y)

    gradient = jax.grad(projection)(w_plus)
    return jnp.sqrt(jnp.square(gradient).sum(axis=2).mean(axis=1))
