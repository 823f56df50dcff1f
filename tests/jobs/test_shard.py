"""Which part of a job a process does."""

import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.jobs.shard import Shard, find_shard

SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, (0, 1)),
        ("1/3", SLURM | {"SLURM_STEP_NODELIST": "a,b"}, (1, 3)),
        (None, {"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"}, (1, 2)),
        (None, {"JOB_COMPLETION_INDEX": "3", "JAX_NUM_PROCESSES": "4"}, (3, 4)),
        # A batch script itself is one process, whatever it may start.
        (None, SLURM, (0, 1)),
        (None, SLURM | {"SLURM_STEP_NODELIST": "a,b"}, (2, 4)),
        (None, {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, (0, 2)),
        (None, {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, (1, 2)),
        (None, {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}, (0, 1)),
    ],
)
def test_parts_are_given_or_found(given, environment, expected):
    assert find_shard(given, environment=environment) == Shard(*expected)


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ("2/2", {}, "--shard: part 2 of 2, expected from 0 to 1"),
        ("0/0", {}, "--shard: part 0 of 0"),
        ("1", {}, "--shard: '1', expected I/N"),
        ("-1/2", {}, "--shard: '-1/2'"),
        (None, {"JAX_PROCESS_ID": "2", "JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID: part 2 of 2"),
        (None, {"JAX_PROCESS_ID": "x", "JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID: 'x'"),
    ],
)
def test_parts_that_are_not_there(given, environment, message):
    with pytest.raises(InputError, match=message):
        find_shard(given, environment=environment)
