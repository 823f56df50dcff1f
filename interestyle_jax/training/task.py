"""What the train loop asks of a task; training the encoder and the generator are two of them."""

from pathlib import Path
from typing import Any, Protocol

import jax
from jaxtyping import PRNGKeyArray

PyTree = Any
Batch = dict[str, jax.Array]


class Task(Protocol):
    """A training problem as pure functions of (state, frozen, batch, key).

    Attributes:
      batch_fields: what the steps read of a sample (`data.pipeline`); images and masks arrive as
        uint8 and are normalised inside the step. Tasks without any read no data set: their batches
        hold `id` alone.
      optional_fields: those of them that data sets may lack.
      frozen: arrays that are never trained and never donated (networks and their statistics).
      initial: arrays that `init` starts from, an empty dict where everything is drawn.
      weight_digests: {field of `config.weights`: digest} of what was read; a run that is
        resumed has the same.
      has_validation_loss: whether `validate_step` returns "loss"; without it the latest
        checkpoint is the best.
    """

    batch_fields: tuple[str, ...]
    optional_fields: tuple[str, ...]
    frozen: PyTree
    initial: PyTree
    weight_digests: dict[str, str]
    has_validation_loss: bool

    def init(self, key: PRNGKeyArray, initial: PyTree) -> PyTree:
        """The state before the first step: a pytree of arrays with a field `step` (int32, 0)."""

    def phase(self, step: int) -> tuple[str, ...]:
        """What is special about the step after `step`, known on the host: a compile-time choice.

        Lazy regularisers run every few steps; XLA runs the branch of a `lax.cond` on one thread
        on CPU, and a compiled step for each phase costs nothing elsewhere.
        """

    def train_step(
        self,
        key: PRNGKeyArray,
        state: PyTree,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[PyTree, dict[str, jax.Array]]:
        """One step; returns the state after it and scalar metrics, "loss" among them."""

    def validate_step(
        self, key: PRNGKeyArray, state: PyTree, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """Figures [B], one an image; their mean "loss" picks the best checkpoint."""

    def images(self, key: PRNGKeyArray, state: PyTree, frozen: PyTree, batch: Batch) -> jax.Array:
        """A grid to look at, a row an image of the batch: [B, columns, H, W, 3] in [-1, 1]."""

    def exported(self, state: PyTree) -> PyTree:
        """What of the state `export` reads; the rest is None, and stays on the devices."""

    def export(self, state: PyTree, directory: Path, *, extra: dict[str, Any]) -> None:
        """Writes a weight directory of what `exported` gives; `extra` goes into its metadata."""
