"""Directions from many latents: GANSpace, the principal components of w.

Source: GANSpace (Härkönen et al. 2020) section 2.1: an incremental PCA of f(z).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.sefa import signed
from interestyle_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of w.

    Attributes:
      mean: [D].
      directions: [K, D], unit length, the widest first.
      deviations: [K], standard deviations of w along them.
      explained: [K], shares of the variance.
    """

    mean: Float[np.ndarray, " D"]
    directions: Float[np.ndarray, "K D"]
    deviations: Float[np.ndarray, " K"]
    explained: Float[np.ndarray, " K"]


def principal_components(batches: Iterable[Float[np.ndarray, "B D"]], *, count: int) -> Components:
    """Components of latents that come in batches; memory does not grow with their number.

    The sums of w and of w w^T are kept in float64: exact where D is some hundreds, and the same
    whatever the batches.

    Raises:
      InputError: fewer latents than components, or more components than w has numbers.
    """
    total = products = start = np.zeros(0)
    seen = 0
    for batch in batches:
        w = np.asarray(batch, np.float64)
        if seen == 0:
            # Sums are about the first latents' mean: nothing is lost where w lies far from 0.
            start, dims = w.mean(0), w.shape[1]
            total, products = np.zeros(dims), np.zeros((dims, dims))
        w = w - start
        total, products, seen = total + w.sum(0), products + w.T @ w, seen + len(w)
    if not 1 <= count <= (most := max(0, min(seen - 1, len(total)))):
        raise InputError(f"--count: expected 1 to {most}, for {seen} latents, got {count}")
    mean = total / seen
    covariance = (products - seen * np.outer(mean, mean)) / (seen - 1)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-values)[:count]
    kept = np.maximum(values[order], 0.0)
    return Components(
        start + mean, signed(vectors[:, order].T), np.sqrt(kept), kept / max(values.sum(), 1e-300)
    )
