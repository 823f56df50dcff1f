"""The real programs of a run, lowered for devices that are not here."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.models import registry
from interestyle_jax.models.backend import built_for
from interestyle_jax.parallel import sharding
from interestyle_jax.planning.counted_work import Work, count_work
from interestyle_jax.planning.targets import Target
from interestyle_jax.training.compiled_step import jit_train_step, phases, step_places
from interestyle_jax.training.random_streams import SeededTask
from interestyle_jax.training.trainer import make_task

COMMANDS = ("train", "invert", "evaluate")
TASKS = ("encoder", "generator", "distillation")
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Program:
    """A program before it is compiled.

    Attributes:
      phase: of a training step, see `Task.phase`; () for others.
      share: of the steps that are this program.
      lowered: `jax.stages.Lowered`.
      work: of all devices together, as it was traced.
      bytes_by_kind: of its arguments, a device: {"parameters", "optimizer", "frozen", ...}.
      trace_seconds: how long tracing took.
    """

    phase: tuple[str, ...]
    share: float
    lowered: Any
    work: Work
    bytes_by_kind: dict[str, int]
    trace_seconds: float


def programs(
    config: ml_collections.ConfigDict, target: Target, *, command: str = "train"
) -> list[Program]:
    """The programs of a command on a target; nothing is computed.

    Args:
      config: of the training; `config.batch_size` is the global batch.
      target: where it would run.
      command: "train" (every form of the step), "invert" (N iterations, the last image kept) or
        "evaluate" (the validation's measurement).

    Raises:
      InputError: a task that cannot be planned, or a batch that the devices do not divide.
    """
    if command not in COMMANDS:
        raise InputError(f"--command: {command!r}, expected one of {', '.join(COMMANDS)}")
    if config.task not in TASKS:
        raise InputError(f"config.task: {config.task}, expected one of {', '.join(TASKS)}")
    if command != "train" and config.task != "encoder":
        raise InputError(f"--command: {command} is an encoder's, the config trains a {config.task}")
    mesh = sharding.make_mesh(
        data=config.mesh.data, fsdp=config.mesh.fsdp, devices=target.devices()
    )
    sharding.check_batch_size(mesh, config.batch_size, accumulate=config.get("accumulate", 1))
    with built_for(target.chip.platform):
        task = make_task(config)
    seeded = SeededTask(task, config.seed)
    state = jax.eval_shape(seeded.init, seeded.initial)
    places = step_places(config, mesh, state, seeded.frozen)
    arguments = (
        _placed(state, places.state),
        _placed(seeded.frozen, places.frozen),
        {k: _spec(shape, places.batch) for k, shape in _batch_shapes(task, config).items()},
    )
    kinds = _bytes_by_kind(*arguments)
    if command != "train":
        del kinds["optimizer"]
    found = []
    for phase, share in phases(task, config.num_steps) if command == "train" else [((), 1.0)]:
        begun = time.perf_counter()
        with jax.set_mesh(mesh):
            if command == "train":
                traced = jit_train_step(seeded, mesh, places).trace(*arguments, phase)
            else:
                infer = (
                    _evaluation(seeded)
                    if command == "evaluate"
                    else _inversion(task, config, target)
                )
                traced = jax.jit(infer).trace(*arguments)
            lowered = traced.lower()
        work = count_work(traced.jaxpr)
        seconds = time.perf_counter() - begun
        found.append(Program(phase, share, lowered, work, kinds, seconds))
    return found


def _evaluation(seeded: SeededTask):
    return lambda state, frozen, batch: seeded.validate_step(
        state, frozen, batch, jnp.zeros((), jnp.int32)
    )


def _inversion(task: Any, config: ml_collections.ConfigDict, target: Target):
    """What `invert` runs: all latents, and the last image."""
    networks = task.networks
    architectures = {
        "generator": networks.generator_part[0],
        "encoder": registry.describe(task.encoder),
    }
    metadata = {
        "architectures": architectures,
        "extra": {"image_shape": list(networks.image_shape)},
    }

    def invert(state, frozen, batch):
        parts = {
            "generator": frozen["networks"]["generator"],
            "encoder": {"params": state.params, "batch_stats": state.batch_stats},
            "w_avg": jnp.asarray(networks.w_avg),
        }
        model = Model(parts, metadata, Path("plan"), config.compute_dtype)
        with built_for(target.chip.platform):
            return model.invert(
                normalize(batch)["image"], config.method.num_iterations, return_images="last"
            )

    return invert


def _batch_shapes(task: Any, config: ml_collections.ConfigDict) -> dict[str, tuple[int, ...]]:
    """The fields of a batch; data sets are made at the size that the networks see."""
    if config.task == "encoder":
        sides = task.networks.image_shape
    else:
        sides = (config.generator.resolution,) * 2
    shapes: dict[str, tuple[int, ...]] = {}
    for field in task.batch_fields:
        if field == "factors":
            shapes[field] = (config.batch_size, len(task.factors.names))
        else:
            shapes[field] = (config.batch_size, *sides, 1 if "mask" in field else 3)
    return shapes


def _spec(shape: tuple[int, ...], place: Any) -> jax.ShapeDtypeStruct:
    dtype = np.uint8 if len(shape) == 4 else np.float32
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _placed(tree: PyTree, places: PyTree) -> PyTree:
    def place(leaf, where):
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=where)

    return jax.tree.map(place, tree, places)


def _bytes_by_kind(state: PyTree, frozen: PyTree, batch: PyTree) -> dict[str, int]:
    """Bytes of a device by what they are of."""
    trees = {
        "parameters": getattr(state, "params", None),
        "optimizer": getattr(state, "opt_state", None),
        "frozen networks": frozen,
        "batch": batch,
    }
    found = {name: _bytes(tree) for name, tree in trees.items()}
    known = found["parameters"] + found["optimizer"]
    return {**found, "other state": _bytes(state) - known}


def _bytes(tree: PyTree) -> int:
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += int(np.prod(shape)) * np.dtype(leaf.dtype).itemsize
    return total
