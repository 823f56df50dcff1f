"""Gradients of a batch in parts, one after the other: a part's memory for the whole's work."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

PyTree = Any
Metrics = dict[str, jax.Array]


def split_batch(batch: dict[str, jax.Array], parts: int) -> dict[str, jax.Array]:
    """[B, ...] -> [parts, B / parts, ...], where part k is rows k, k + parts, k + 2 parts ...

    So every device of a mesh that shares out the rows finds its share of every part among its own,
    and nothing moves.
    """

    def split(rows: jax.Array) -> jax.Array:
        return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)

    return {name: split(rows) for name, rows in batch.items()}


def accumulate(
    key: PRNGKeyArray,
    gradients: Callable[[jax.Array, PyTree, dict[str, jax.Array]], tuple[PyTree, PyTree, Metrics]],
    carry: PyTree,
    batch: dict[str, jax.Array],
    parts: int,
    *,
    loop: str = "unroll",
) -> tuple[PyTree, PyTree, Metrics]:
    """The mean gradient of a batch, from its parts.

    Equal to one pass over the whole where `gradients` treats images apart; BatchNorm does not: it
    normalises each part by itself, and its running statistics move with every part.

    Args:
      key: folded with the part's number; as it is where there is one part.
      gradients: `(key, carry, batch) -> (gradient, carry, metrics)` of a mean over images.
      carry: what one part hands to the next, as BatchNorm statistics.
      batch: arrays [B, ...], `parts` divides B.
      parts: how many.
      loop: "unroll" or "scan", as in `inversion.refinement`.

    Returns:
      The means of gradients and metrics, and the last carry.
    """
    if parts == 1:
        return gradients(key, carry, batch)

    def add(state, at):
        carry, *sums = state
        index, part = at
        grads, carry, metrics = gradients(jax.random.fold_in(key, index), carry, part)
        return (carry, *jax.tree.map(jnp.add, tuple(sums), (grads, metrics))), None

    split = split_batch(batch, parts)
    first = jax.tree.map(lambda rows: rows[0], split)
    grads, _, metrics = jax.eval_shape(gradients, key, carry, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, metrics))
    (carry, *sums), _ = jax.lax.scan(
        add, (carry, *zeros), (jnp.arange(parts), split), unroll=loop == "unroll"
    )
    grads, metrics = jax.tree.map(lambda total: total / parts, tuple(sums))
    return grads, carry, metrics
