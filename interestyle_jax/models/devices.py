"""The devices that a step is traced for: those of the mesh of `jax.set_mesh`."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Shaped


def num_devices() -> int:
    """How many share the batch; 1 under no mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def first_axis_on_devices(x: Shaped[jax.Array, "G ..."]) -> Shaped[jax.Array, "G ..."]:
    """x [G, ...] with its first axis over all devices, whose number divides G."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))
