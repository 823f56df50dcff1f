"""What directions do to fresh samples: scores that move, attributes that appear or change."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.direction_training import draw, score_w
from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.scores import Scorer
from interestyle_jax.evaluation.attribute_changes import attribute_changes, choose_strength
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.inversion.inverter import Model

# Shares of a range that are measured, see `with_measured_ranges`.
MEASURED = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


def changes(
    model: Model,
    w: Float[np.ndarray, "N D"],
    directions: Sequence[Direction],
    scorer: Scorer,
    *,
    batch_size: int,
) -> dict[str, dict[str, float]]:
    """By how much each direction changes each score: {direction: {attribute: mean change}}.

    w is [N, D]. The change from the low to the high end of the direction's range, halved; NaN where
    no image of either end has a score.
    """
    found = {}
    for direction in directions:
        low, high = direction.default_range or (-1.0, 1.0)
        scored = [
            score_w(model, w + strength * direction.array, scorer, batch_size=batch_size)
            for strength in (low, high)
        ]
        found[direction.name] = {
            name: _mean(scored[1][name] - scored[0][name]) / 2 for name in scored[0]
        }
    return found


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def with_measured_ranges(
    model: Model,
    w: Float[np.ndarray, "N D"],
    directions: Sequence[Direction],
    reader: AttributeReader,
    *,
    batch_size: int,
) -> list[Direction]:
    """Directions whose ranges end at the strength to use, with what it does to images of w [N, D].

    The strength is `attribute_changes.choose_strength` of MEASURED times the range that they come
    with. `extra["measured"]` has it, the shares of `AttributeChanges`, and the number of images.
    """
    before = reader.read_all(_drawn(model, w, batch_size), batch_size=batch_size)
    found = []
    for direction in directions:
        _, high = direction.default_range or (-1.0, 1.0)
        changes = {}
        for share in MEASURED:
            moved = w + share * high * direction.array
            after = reader.read_all(_drawn(model, moved, batch_size), batch_size=batch_size)
            changes[share * high] = attribute_changes(before, after, direction.extra["attribute"])
        strength = choose_strength(changes)
        measured = {
            "strength": strength,
            "num_images": len(w),
            "eligible": changes[strength].eligible,
            "reached": changes[strength].reached,
            "changed": changes[strength].changed,
        }
        found.append(
            dataclasses.replace(
                direction,
                default_range=(-strength, strength),
                extra={**direction.extra, "measured": measured},
            )
        )
    return found


def _drawn(model: Model, w: Float[np.ndarray, "N D"], batch_size: int) -> np.ndarray:
    """As `draw`, in batches of one size."""
    parts = []
    for start in range(0, len(w), batch_size):
        part = w[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part)), (0, 0)], mode="edge")
        parts.append(draw(model, jnp.asarray(padded, jnp.float32))[: len(part)])
    return np.concatenate(parts)
