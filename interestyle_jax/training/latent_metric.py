"""How much errors of a latent matter: a metric of w_plus by what they change in the image.

In plain squares of w a face's features count for little: an avatar's mouth is a hundredth of the
variance, its tilt a third. The metric is that of Gauss and Newton, the mean of J^T J over images,
with J the derivative of pixels and LPIPS features by w_plus, from random projections of J. They
are images of latents between the mean and avatars: kinds of parts jump, so that at an avatar itself
J hardly knows of any other beard, and an encoder begins at the mean.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.models.products import matmul

# Images to a call, and the directions of w_plus that are kept.
BATCH, RANK = 64, 400
# Share of plain squares, which hold what images hardly show.
PLAIN = 0.2

Vectors = Callable[[jax.Array], Sequence[jax.Array]]


def image_metric(
    key: PRNGKeyArray,
    synthesize: Callable[[jax.Array], jax.Array],
    vectors: Vectors,
    w: Float[np.ndarray, "B D"],
    w_avg: Float[np.ndarray, "L D"],
) -> Float[np.ndarray, "L*D K"]:
    """A projection of errors of w_plus, flattened, whose squared length is what they change.

    Args:
      key: for the projections, one an image, and for the places between.
      synthesize: `w_plus [B, L, D] -> images`.
      vectors: images -> arrays [B, ...] whose squared distances add up to the loss of two images.
      w: latents; J is taken between the mean latent and each. Full batches of `BATCH` are used.
      w_avg: the mean latent, a row for each of w_plus.

    Returns:
      float32, scaled so that the mean latent's own squared length is 1 in the mean over `w`.
    """

    @jax.jit
    def project(key, w):
        key, key_between = jax.random.split(key)
        share = jax.random.uniform(key_between, (len(w), 1, 1))

        def projected(w_plus):
            total = jnp.zeros(())
            for i, vector in enumerate(vectors(synthesize(w_plus))):
                drawn = jax.random.normal(jax.random.fold_in(key, i), vector.shape)
                total += jnp.sum(drawn * vector)
            return total

        return jax.grad(projected)(w_avg + share * (w[:, None] - w_avg))

    rows = [
        np.asarray(project(jax.random.fold_in(key, start), w[start : start + BATCH]))
        for start in range(0, len(w) - BATCH + 1, BATCH)
    ]
    stacked = np.concatenate(rows).reshape(-1, w_avg.size).astype(np.float64)
    _, sizes, directions = np.linalg.svd(stacked, full_matrices=False)
    found = directions[:RANK].T * sizes[:RANK]
    apart = (w[:, None] - w_avg).reshape(len(w), -1)
    return (found / np.sqrt(np.square(apart @ found).sum(1).mean())).astype(np.float32)


def latent_error(
    w_plus: Float[jax.Array, "B L D"],
    w: Float[jax.Array, "B D"],
    metric: Float[jax.Array, "L*D K"],
    variance: Float[jax.Array, ""],
) -> Float[jax.Array, " B"]:
    """How far w_plus is from w: about 1 for the mean latent, 0 where they agree.

    Args:
      w_plus: [B, L, D].
      w: the known latent, of all rows.
      metric: of `image_metric`.
      variance: mean square of a number of w - w_avg.
    """
    error = w_plus - w[:, None]
    image = jnp.square(matmul(error.reshape(len(error), -1), metric)).sum(1)
    plain = jnp.square(error).mean((1, 2)) / variance
    return (1 - PLAIN) * image + PLAIN * plain
