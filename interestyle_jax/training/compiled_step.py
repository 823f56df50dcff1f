"""A run's step as it is compiled: where its arguments lie, what it donates, which forms it has."""

from collections import Counter
from typing import Any, NamedTuple

import jax
import ml_collections

from interestyle_jax.errors import InputError
from interestyle_jax.parallel import sharding
from interestyle_jax.training.random_streams import SeededTask
from interestyle_jax.training.task import Task

PyTree = Any


class StepPlaces(NamedTuple):
    """Shardings of a step's arguments, in their order: trees, and one for all fields of a batch."""

    state: PyTree
    frozen: PyTree
    batch: jax.sharding.NamedSharding


def step_places(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, state: PyTree, frozen: PyTree
) -> StepPlaces:
    """Where a step's arguments lie on a mesh.

    Args:
      config: of the run; of its `mesh` it is asked what is split beside the parameters:
        `shard_frozen`, and `shard_optimizer`, of what a state calls `opt_state`.
      mesh: of `sharding.make_mesh`.
      state: arrays or their shapes.
      frozen: `Task.frozen`.

    Raises:
      InputError: an optimizer is to be split that is not one, or an fsdp axis that divides nothing.
    """
    of_state = sharding.tree_sharding(mesh, state)
    if config.mesh.shard_optimizer:
        if not hasattr(state, "opt_state"):
            raise InputError(
                "config.mesh.shard_optimizer: expected False, this training has several optimizers"
            )
        split = sharding.optimizer_sharding(mesh, state.opt_state)
        of_state = of_state.replace(opt_state=split)
    return StepPlaces(
        of_state,
        sharding.frozen_sharding(mesh, frozen, split=config.mesh.shard_frozen),
        sharding.batch_sharding(mesh),
    )


def jit_train_step(
    seeded: SeededTask, mesh: jax.sharding.Mesh, places: StepPlaces
) -> jax.stages.Wrapped:
    """The jitted `(state, frozen, batch, phase) -> (state, metrics)` of a run.

    The state is donated, the phase (`Task.phase`) static. To be called within `jax.set_mesh(mesh)`.
    """
    return jax.jit(
        seeded.train_step,
        in_shardings=tuple(places),
        out_shardings=(places.state, sharding.replicated(mesh)),
        donate_argnums=0,
        static_argnums=3,
    )


def phases(task: Task, num_steps: int) -> list[tuple[tuple[str, ...], float]]:
    """The forms of a run's step with their shares of the steps, the most frequent first."""
    counts = Counter(task.phase(step) for step in range(num_steps))
    return [(phase, count / num_steps) for phase, count in counts.most_common()]
