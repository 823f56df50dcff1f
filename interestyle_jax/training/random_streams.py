"""Where a run's random numbers come from: named streams of its seed, each for one thing.

`jax.random.split(key, n)[i]` equals `jax.random.fold_in(key, i)`, so a key that is derived from in
two places gives the same numbers twice. A run's seed is therefore turned into keys here alone, and
a function that gets a key splits it once.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Integer

from interestyle_jax.training.task import Batch, Task

PyTree = Any
# A name's place is its stream: append, never reorder.
STREAMS = ("initialisation", "steps", "validation", "images", "mean_latent", "latent_metric")


def stream(seed: int | Integer[Any, ""], name: str) -> jax.Array:
    """The key of one stream of a seed; may be called inside jit, where it lies on no device.

    Args:
      seed: `config.seed`, or `seed_bits` of it.
      name: one of `STREAMS`.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))


def seed_bits(seed: int) -> np.uint32:
    """A seed as an array: an argument of compiled programs, which then serve all seeds."""
    return np.uint32(seed & 0xFFFFFFFF)


@dataclasses.dataclass(frozen=True)
class SeededTask:
    """A task's functions, which take the run's seed with its other arrays; see `Task` for all else.

    Attributes:
      task: what is trained.
      seed: `config.seed`.
    """

    task: Task
    seed: int

    @property
    def initial(self) -> PyTree:
        """The argument of `init`."""
        return {"seed": seed_bits(self.seed), "variables": self.task.initial}

    @property
    def frozen(self) -> PyTree:
        """The argument `frozen` of the other functions."""
        return {"seed": seed_bits(self.seed), "networks": self.task.frozen}

    def init(self, initial: PyTree) -> PyTree:
        """The state before the first step."""
        return self.task.init(stream(initial["seed"], "initialisation"), initial["variables"])

    def train_step(
        self, state: PyTree, frozen: PyTree, batch: Batch, phase: tuple[str, ...]
    ) -> tuple[PyTree, dict[str, jax.Array]]:
        """The step after `state.step`; each has its own key."""
        key = jax.random.fold_in(stream(frozen["seed"], "steps"), state.step)
        return self.task.train_step(key, state, frozen["networks"], batch, phase=phase)

    def validate_step(
        self, state: PyTree, frozen: PyTree, batch: Batch, index: Int[jax.Array, ""]
    ) -> dict[str, jax.Array]:
        """Figures of validation batch `index` (int32 scalar): always the same draws."""
        key = jax.random.fold_in(stream(frozen["seed"], "validation"), index)
        return self.task.validate_step(key, state, frozen["networks"], batch)

    def images(
        self, state: PyTree, frozen: PyTree, batch: Batch, index: Int[jax.Array, ""]
    ) -> jax.Array:
        """Rows of the grid, of validation batch `index` (int32 scalar): always the same draws."""
        key = jax.random.fold_in(stream(frozen["seed"], "images"), index)
        return self.task.images(key, state, frozen["networks"], batch)
