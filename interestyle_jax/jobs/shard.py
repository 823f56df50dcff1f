"""Which part of a job this process does: `--shard=I/N`, or what the scheduler says."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from interestyle_jax.errors import InputError

# (index, count) of what starts processes, the first pair that is set decides. Kubernetes sets the
# index of an indexed job, and launch/gke the number. Only what srun starts has a step's node list;
# a batch script itself has SLURM_PROCID too.
_VARIABLES = (
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", None),
    ("JOB_COMPLETION_INDEX", "JAX_NUM_PROCESSES", None),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
)


class Shard(NamedTuple):
    """Part `index` of `count`; its batches are `index`, `index + count`, ..."""

    index: int = 0  # type: ignore[assignment]
    count: int = 1  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()


def find_shard(given: str | None, *, environment: Mapping[str, str] = os.environ) -> Shard:
    """The part that this process does.

    The processes of a job need no connection: they share the output folder alone, and one that is
    lost takes none with it.

    Args:
      given: "I/N" with I from 0 to N - 1, or None to look at the environment: JAX_PROCESS_ID and
        JAX_NUM_PROCESSES, Kubernetes' JOB_COMPLETION_INDEX with the latter, SLURM, Open MPI, and
        the list of workers that TPU hosts have.
      environment: variables.

    Raises:
      InputError: no such part.
    """
    if given is not None:
        found = re.fullmatch(r"(\d+)/(\d+)", given)
        if not found:
            raise InputError(f"--shard: {given!r}, expected I/N as in 0/4")
        return _checked(int(found[1]), int(found[2]), "--shard")
    for index, count, needed in _VARIABLES:
        if index in environment and count in environment and needed in (None, *environment):
            numbers = []
            for name in (index, count):
                if not environment[name].isdecimal():
                    raise InputError(f"{name}: {environment[name]!r}, expected a whole number")
                numbers.append(int(environment[name]))
            return _checked(numbers[0], numbers[1], index)
    hosts = [host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    worker = environment.get("TPU_WORKER_ID", "")
    if len(hosts) > 1 and worker.isdecimal():
        return _checked(int(worker), len(hosts), "TPU_WORKER_ID")
    return WHOLE


def _checked(index: int, count: int, name: str) -> Shard:
    if not 0 <= index < count:
        raise InputError(f"{name}: part {index} of {count}, expected from 0 to {count - 1}")
    return Shard(index, count)
