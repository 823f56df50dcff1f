"""Where arrays live: the mesh, and the sharding of state, frozen networks and batches."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from interestyle_jax.errors import InputError

PyTree = Any
AXES = ("data", "fsdp")
FSDP_MIN_SIZE = 2**14
# (what is found in an array's path, its axes in the order in which `fsdp` tries them). The first
# rule that fits decides. The last axis is the output channels in every kernel here, so gradient
# centralisation, a mean over all other axes, stays within a device.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"(^|/)batch_stats/", ()),
    (r"(^|[/_])kernel$", (-1, -2)),
    (r"", ()),
)


def make_mesh(
    *, data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with axes `data` and `fsdp`.

    Args:
      data: devices along the batch; -1 takes what `fsdp` leaves.
      fsdp: devices that share one copy of the parameters; the batch is split over them too.
      devices: all devices of all processes by default.

    Raises:
      InputError: the axes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1 and fsdp > 0:
        data = len(devices) // fsdp
    if data < 1 or fsdp < 1 or data * fsdp != len(devices):
        raise InputError(
            f"config.mesh: data={data} x fsdp={fsdp} does not make up the {len(devices)} devices"
        )
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def local_mesh() -> Mesh | None:
    """All devices of this process, or None where there is one."""
    devices = jax.local_devices()
    return make_mesh(devices=devices) if len(devices) > 1 else None


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of the batch over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def spec(
    path: str,
    shape: Sequence[int],
    fsdp: int,
    *,
    rules: Sequence[tuple[str, tuple[int, ...]]] = RULES,
    min_size: int = FSDP_MIN_SIZE,
) -> PartitionSpec:
    """How one array lies on the mesh.

    Args:
      path: its place in the tree, joined by "/".
      shape: its shape.
      fsdp: size of the axis `fsdp`.
      rules: see `RULES`.
      min_size: arrays of fewer elements stay whole; a gather would cost more than they do.

    Returns:
      The first axis of the first rule that fits, where `fsdp` divides it, over `fsdp`; whole where
      it divides none.
    """
    if fsdp == 1 or np.prod(shape) < min_size:
        return PartitionSpec()
    axes = next((axes for pattern, axes in rules if re.search(pattern, path)), ())
    for axis in axes:
        if -len(shape) <= axis < len(shape) and shape[axis] % fsdp == 0:
            return PartitionSpec(*[None] * (axis % len(shape)), "fsdp")
    return PartitionSpec()


def tree_sharding(
    mesh: Mesh,
    tree: PyTree,
    *,
    rules: Sequence[tuple[str, tuple[int, ...]]] = RULES,
    min_size: int = FSDP_MIN_SIZE,
) -> PyTree:
    """`spec` for every array of a tree; all of them are replicated where the fsdp axis is 1.

    Args:
      mesh: from `make_mesh`.
      tree: a pytree of arrays or `jax.ShapeDtypeStruct`.
      rules: see `RULES`.
      min_size: see `spec`.

    Returns:
      The same tree of `NamedSharding`.

    Raises:
      InputError: an fsdp axis that divides nothing of the tree.
    """
    fsdp = mesh.shape["fsdp"]

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec(name, leaf.shape, fsdp, rules=rules, min_size=min_size))

    places = jax.tree_util.tree_map_with_path(place, tree)
    if fsdp > 1 and all(p.is_fully_replicated for p in jax.tree.leaves(places)):
        raise InputError(
            f"config.mesh.fsdp: {fsdp} divides the channels of no array; expected 1, or a number "
            "that does, as a power of two"
        )
    return places


def optimizer_sharding(mesh: Mesh, tree: PyTree, *, min_size: int = FSDP_MIN_SIZE) -> PyTree:
    """An optimizer's state split over all devices, whatever its parameters are.

    Each device updates its share of the parameters (ZeRO's first stage, Rajbhandari et al. 2020),
    and they are gathered once a step.

    Args:
      mesh: from `make_mesh`.
      tree: the state, arrays or `jax.ShapeDtypeStruct`.
      min_size: see `spec`.
    """

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        over = spec(name, leaf.shape, mesh.size, min_size=min_size)
        return NamedSharding(mesh, PartitionSpec(*(AXES if axis else None for axis in over)))

    return jax.tree_util.tree_map_with_path(place, tree)


def frozen_sharding(mesh: Mesh, tree: PyTree, *, split: bool = False) -> PyTree:
    """Where networks that are not trained lie: whole on every device, or split as `tree_sharding`.

    Splitting saves their memory and costs a gather in every pass.
    """
    if split:
        return tree_sharding(mesh, tree)
    return jax.tree.map(lambda _: replicated(mesh), tree)


def gathered(tree: PyTree) -> PyTree:
    """The arrays whole on every device, for use in a jitted step; under no mesh, as they are.

    Left to itself the compiler may split a layer's output channels over `fsdp` instead, and send
    maps around. The step is traced under `jax.set_mesh`.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def shared_out(rows: Shaped[jax.Array, "B ..."]) -> jax.Array:
    """Rows [B, ...] that a jitted step made itself, over all devices as those of the batch.

    Left to itself the compiler draws, and computes with, all of them on every device. Rows that the
    devices do not divide stay as they are, as do all under no mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(rows) % mesh.size:
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec(AXES))


def check_batch_size(mesh: Mesh, batch_size: int, *, accumulate: int = 1) -> None:
    """Raises InputError where the mesh, or the parts of an accumulated step, do not divide it."""
    if not isinstance(accumulate, int) or accumulate < 1:
        raise InputError(f"config.accumulate: expected a whole number from 1, got {accumulate}")
    parts = mesh.size * accumulate
    if batch_size < 1 or batch_size % parts:
        steps = f" in {accumulate} parts" if accumulate > 1 else ""
        raise InputError(
            f"config.batch_size: {batch_size} cannot be split over the {mesh.size} devices of the "
            f"mesh{steps}; expected a multiple of {parts}"
        )


def local_rows(sharding: NamedSharding, batch_size: int) -> list[int]:
    """The rows of the global batch that this process' devices hold, in order."""
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for (rows,) in slices for row in range(*rows.indices(batch_size))})


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows [b, ...] of every field (`local_rows`) as one global array [B, ...]."""
    count = len(next(iter(batch.values())))
    size = count * sharding.num_devices // len(sharding.addressable_devices)
    position = {row: i for i, row in enumerate(local_rows(sharding, size))}

    def put(own: np.ndarray) -> jax.Array:

        def rows_of(index):
            first, last, _ = index[0].indices(size)
            return own[position[first] : position[first] + last - first]

        return jax.make_array_from_callback((size, *own.shape[1:]), sharding, rows_of)

    return {name: put(np.asarray(rows)) for name, rows in batch.items()}


def put_tree(tree: PyTree, places: PyTree) -> PyTree:
    """NumPy arrays that every process has alike, as global arrays where `places` says."""

    def put(whole: np.ndarray, place: NamedSharding) -> jax.Array:
        whole = np.asarray(whole)
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(put, tree, places)


def to_host(tree: PyTree) -> PyTree:
    """Global arrays as whole NumPy arrays, on every process; all processes must call it.

    Arrays that are split over processes are gathered one after the other, so that the devices
    never hold more than one of them whole.
    """

    def fetch(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, tree)
