"""Where a run's random numbers come from: named streams of its seed, each for one thing.

`jax.random.split(key, n)[i]` equals `jax.random.fold_in(key, i)`, so a key that is derived from in
two places gives the same numbers twice. A run's seed is therefore turned into keys here alone, and
a function that gets a key splits it once.
"""

import dataclasses
from typing import Any

import jax
from jaxtyping import Int

from interestyle_jax.training.task import Batch, Task

PyTree = Any
# A name's place is its stream: append, never reorder.
STREAMS = ("initialisation", "steps", "validation", "images", "mean_latent")


def stream(seed: int, name: str) -> jax.Array:
    """The key of one stream of a seed; may be called inside jit, where it lies on no device.

    Args:
      seed: `config.seed`.
      name: one of `STREAMS`.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))


@dataclasses.dataclass(frozen=True)
class SeededTask:
    """A task's functions with a run's keys in them; see `Task` for all else."""

    task: Task
    seed: int

    def init(self, initial: PyTree) -> PyTree:
        """The state before the first step."""
        return self.task.init(stream(self.seed, "initialisation"), initial)

    def train_step(
        self, state: PyTree, frozen: PyTree, batch: Batch, phase: tuple[str, ...]
    ) -> tuple[PyTree, dict[str, jax.Array]]:
        """The step after `state.step`; each has its own key."""
        key = jax.random.fold_in(stream(self.seed, "steps"), state.step)
        return self.task.train_step(key, state, frozen, batch, phase=phase)

    def validate_step(
        self, state: PyTree, frozen: PyTree, batch: Batch, index: Int[jax.Array, ""]
    ) -> dict[str, jax.Array]:
        """Figures of validation batch `index` (int32 scalar): always the same draws."""
        key = jax.random.fold_in(stream(self.seed, "validation"), index)
        return self.task.validate_step(key, state, frozen, batch)

    def images(
        self, state: PyTree, frozen: PyTree, batch: Batch, index: Int[jax.Array, ""]
    ) -> jax.Array:
        """Rows of the grid, of validation batch `index` (int32 scalar): always the same draws."""
        key = jax.random.fold_in(stream(self.seed, "images"), index)
        return self.task.images(key, state, frozen, batch)
