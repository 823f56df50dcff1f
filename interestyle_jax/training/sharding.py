"""Where arrays live: the mesh, and the sharding of state, frozen networks and batches."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from interestyle_jax.errors import InputError

PyTree = Any
AXES = ("data", "fsdp")
FSDP_MIN_SIZE = 2**14


def make_mesh(
    *, data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with axes `data` and `fsdp`.

    Args:
      data: devices along the batch; -1 takes what `fsdp` leaves.
      fsdp: devices that share one copy of the parameters; the batch is split over them too.
      devices: all devices by default.

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


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of the batch over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(mesh: Mesh, state: PyTree, *, min_size: int = FSDP_MIN_SIZE) -> PyTree:
    """Splits every large array of the state along `fsdp`, over its largest axis that divides.

    Args:
      mesh: from `make_mesh`.
      state: a pytree of arrays or `jax.ShapeDtypeStruct`.
      min_size: arrays of fewer elements stay whole; a gather would cost more than they do.

    Returns:
      The same tree of `NamedSharding`; what stays whole, and everything where the fsdp axis is 1,
      is replicated.
    """
    size = mesh.shape["fsdp"]

    def rule(leaf):
        axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
        if size == 1 or not axes or np.prod(leaf.shape) < min_size:
            return replicated(mesh)
        axis = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(rule, state)


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Raises InputError where the mesh does not divide the batch."""
    if batch_size < 1 or batch_size % mesh.size:
        raise InputError(
            f"config.batch_size: {batch_size} cannot be split over the {mesh.size} devices of the "
            f"mesh; expected a multiple of {mesh.size}"
        )


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows [b, ...] of every field as one global array [B, ...]."""
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
