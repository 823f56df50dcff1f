"""How much errors of a latent matter: a metric of w_plus by what they change in the image.

In plain squares of w a face's features count for little: an avatar's mouth is a hundredth of the
variance, its tilt a third. The metric is that of Gauss and Newton, the mean of J^T J over images,
with J the derivative of pixels and LPIPS features by w_plus, from random projections of J. They
are images of latents between the mean and avatars: kinds of parts jump, so that at an avatar itself
J hardly knows of any other beard, and an encoder begins at the mean. What a change of kind shows
beyond that is counted in `with_changes`.
"""

from collections.abc import Callable, Iterable, Sequence

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
    found = _compressed(stacked.T)
    apart = (w[:, None] - w_avg).reshape(len(w), -1)
    return (found / np.sqrt(np.square(apart @ found).sum(1).mean())).astype(np.float32)


def with_changes(
    metric: Float[np.ndarray, "L*D K"],
    shown: Callable[[jax.Array, jax.Array], jax.Array],
    w: Float[np.ndarray, "B D"],
    changes: Iterable[tuple[Float[np.ndarray, "B D"], int]],
    w_avg: Float[np.ndarray, "L D"],
) -> Float[np.ndarray, "L*D K2"]:
    """A metric in which whole changes of an image, from w to another w, count what they show.

    Args:
      metric: of `image_metric`.
      shown: two arrays of w [B, D] -> the losses [B] of their images, a batch of `BATCH` at a time.
      w: latents, a multiple of `BATCH`.
      changes: the same latents with one thing changed, and the number of dimensions in which such
        changes lie; w itself where nothing has changed.
      w_avg: the mean latent, a row for each of w_plus.

    Returns:
      The metric, with what it lacks along these changes added. Of a change the rows of w_plus have
      the shares that they have in `metric`.
    """
    num_rows = len(w_avg)
    mean = np.broadcast_to(w_avg[0], w.shape)
    total, columns = _in_batches(shown, w, mean).mean(), [metric.astype(np.float64)]
    by_row = columns[0].reshape(num_rows, -1, metric.shape[1])
    for other, dimensions in changes:
        moved = np.flatnonzero(np.abs(other - w).max(1) > 0)
        if not len(moved):
            continue
        change = (other - w)[moved].astype(np.float64)
        projected = np.einsum("nd,rdk->nrk", change, by_row)
        lacks = _in_batches(shown, w, other)[moved] / total - np.square(projected.sum(1)).sum(1)
        shares = np.square(projected).sum(2) + 1e-12
        shares /= shares.sum(1, keepdims=True)
        along = shares[:, :, None] * change[:, None] / np.square(change).sum(1)[:, None, None]
        size = np.sqrt(np.maximum(lacks, 0) * dimensions / len(moved))
        columns.append((size[:, None, None] * along).reshape(len(moved), -1).T)
    return _compressed(np.concatenate(columns, axis=1)).astype(np.float32)


def _in_batches(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    parts = range(0, len(arrays[0]), BATCH)
    return np.concatenate(
        [np.asarray(function(*(a[i : i + BATCH] for a in arrays))) for i in parts]
    )


def _compressed(columns: np.ndarray) -> np.ndarray:
    """The `RANK` columns whose squared projections are nearest to those of all."""
    directions, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return directions[:, :RANK] * sizes[:RANK]


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
