"""A run on several processes: how they find each other, agree, and end when one is lost.

Every process runs the same program on its own devices. The first one, of index 0, is the
coordinator and the only one that writes logs and weights.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from glob import glob
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from interestyle_jax import exit_status
from interestyle_jax.errors import InputError, MachineError, reason

# A process that is not heard of for so long is dead; its peers end within a minute.
HEARTBEAT_SECONDS = 20
CONNECT_SECONDS = 300
CLOCK_SKEW_SECONDS = 30
# Time for the others to say what is wrong, before the coordinator's end ends them.
_LAST_WORDS_SECONDS = 2.0
# JAX ends a process in C++ where a peer is lost, with a stack trace; a witness says the rest. It
# outlives the signals that a scheduler sends to all of a job.
_WITNESS = """
import signal, sys
for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(name, signal.SIG_IGN)
if sys.stdin.read() != "orderly":
    sys.exit(f"interestyle: error: {sys.argv[1]}")
"""
_NAMES = ("coordinator", "num_processes", "process_id")
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class Address(NamedTuple):
    """Where the coordinator listens (HOST:PORT), how many processes there are, and which is this.

    None in every field leaves the answer to JAX, which knows the scheduler's variables.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def find_address(
    given: Address, *, environment: Mapping[str, str] = os.environ, detect: bool = True
) -> Address | None:
    """What to connect to: flags, else JAX_COORDINATOR_ADDRESS and the like, else the scheduler.

    Args:
      given: from the command line; its None fields were not given.
      environment: variables. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (or
        JOB_COMPLETION_INDEX, which Kubernetes sets) say it outright. SLURM, Open MPI and TPU hosts
        are recognised where they have more than one process, and JAX reads their variables itself.
      detect: look at the environment at all.

    Returns:
      The address, or None for a run of one process.

    Raises:
      InputError: some of the three are given and some are not, or they make no sense.
    """
    if any(value is not None for value in given):
        return _checked(given, tuple(f"--{name.replace('_', '-')}" for name in _NAMES))
    if not detect:
        return None
    if _VARIABLES[0] in environment:
        index = environment.get(_VARIABLES[2], environment.get("JOB_COMPLETION_INDEX"))
        numbers = []
        for name, text in ((_VARIABLES[1], environment.get(_VARIABLES[1])), (_VARIABLES[2], index)):
            try:
                numbers.append(None if text is None else int(text))
            except ValueError as error:
                raise InputError(f"{name}: {text!r}, expected a whole number") from error
        return _checked(Address(environment[_VARIABLES[0]], *numbers), _VARIABLES)
    # A batch script itself has SLURM_PROCID too; only what srun starts has a step's node list.
    steps = int(environment.get("SLURM_NTASKS", 1)) if "SLURM_STEP_NODELIST" in environment else 1
    ranks = int(environment.get("OMPI_COMM_WORLD_SIZE", 1))
    return Address() if max(steps, ranks) > 1 or _on_tpu_host(environment) else None


def _on_tpu_host(environment: Mapping[str, str]) -> bool:
    """Whether this is a TPU host; a pod's hosts find each other through the machine's metadata."""
    # A list like "tpu,cpu"; empty leaves the choice to JAX.
    platforms = environment.get("JAX_PLATFORMS", "").split(",")
    if not {"", "tpu"} & set(platforms) or find_spec("libtpu") is None:
        return False
    return bool(glob("/dev/accel*") or glob("/dev/vfio/[0-9]*"))


def _checked(address: Address, names: tuple[str, ...]) -> Address:
    for name, value in zip(names, address, strict=True):
        if value is None:
            others = ", ".join(other for other in names if other != name)
            raise InputError(f"{name}: missing, it belongs with {others}")
    host, colon, port = address.coordinator.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise InputError(f"{names[0]}: {address.coordinator!r}, expected HOST:PORT")
    if not 0 <= address.process_id < address.num_processes:
        raise InputError(
            f"{names[2]}: {address.process_id}, expected from 0 to {address.num_processes - 1} "
            f"({names[1]} is {address.num_processes})"
        )
    return address


def connect(address: Address | None, *, timeout: float = CONNECT_SECONDS) -> None:
    """Joins the other processes; before any other use of JAX. None: there are no others.

    Raises:
      InputError: the addresses do not fit together.
      MachineError: not all processes came within `timeout` seconds.
    """
    if address is None:
        return
    try:
        jax.distributed.initialize(
            *address,
            initialization_timeout=int(timeout),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=3 * HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        place = f"process {address.process_id} of {address.num_processes}, coordinator "
        place = place + address.coordinator if address.coordinator else "the scheduler's variables"
        kind = InputError if isinstance(error, ValueError) else MachineError
        raise kind(f"several processes: cannot connect ({place}): {reason(error)}") from error


@contextlib.contextmanager
def connected(address: Address | None, *, timeout: float = CONNECT_SECONDS) -> Iterator[None]:
    """A run of one or several processes.

    An error within it ends a process among several at once, with one line on stderr and the status
    that `exit_status` says, 1 for a fault of the program. An orderly end would wait for peers that
    wait for this one. They notice that it is gone and end as well, within a minute.
    """
    witness = None if address is None else _witness(address, timeout)
    try:
        connect(address, timeout=timeout)
        yield
    except BaseException as error:
        if witness is not None:
            witness.communicate("orderly")
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        status = exit_status.status_of(error)
        if status is None and isinstance(error, jax.errors.JaxRuntimeError):
            error = MachineError(f"{reason(error)} (another process was lost; see its log)")
        elif status is None and isinstance(error, Exception):
            traceback.print_exception(error)
        which = f"process {jax.process_index()} of {jax.process_count()}: "
        exit_status.report_error(error, program="interestyle", prefix=which)
        if jax.process_index() == 0:
            time.sleep(_LAST_WORDS_SECONDS)
        os._exit(status or 1)
    meet("end")
    if witness is not None:
        witness.communicate("orderly")


def _witness(address: Address, timeout: float) -> subprocess.Popen:
    """A small process that says on stderr that this one ended otherwise than by `connected`."""
    number, count = address.process_id, address.num_processes
    which = "a process of this run" if number is None else f"process {number} of {count}"
    line = (
        f"{which} was ended: a peer was lost, or not all came within {timeout:g} s; the lines "
        "above and the logs of the other processes say more"
    )
    return subprocess.Popen(
        [sys.executable, "-S", "-c", _WITNESS, line], stdin=subprocess.PIPE, text=True
    )


def is_first() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(value: Any) -> list[Any]:
    """Every process' `value`, which JSON can hold, in the order of processes; all must ask."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(text.size, np.int32))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, lengths, strict=True)]


def all_of(value: bool) -> bool:
    """Whether `value` is true on every process; all must ask."""
    return all(gather(value))


def of_first(value: Any) -> Any:
    """The first process' value, which JSON can hold; all must ask."""
    return gather(value)[0]


def together(work: Callable[[], Any]) -> list[Any]:
    """What `work` returns on every process, a value that JSON can hold; all must ask.

    Where it raises on one process, it raises on all of them, so that none waits for another.

    Raises:
      MachineError: it raised on another process, which is named.
    """
    value, error = None, None
    try:
        value = work()
    except Exception as caught:
        error = caught
    ended = gather([value, None if error is None else reason(error)])
    if error is not None:
        raise error
    for process, (_, why) in enumerate(ended):
        if why is not None:
            raise MachineError(f"process {process} of {len(ended)} failed: {why}")
    return [value for value, _ in ended]


def tree_of_first(make: Callable[[], Any]) -> Any:
    """What `make` returns on the first process, a tree of arrays, on all of them as NumPy arrays.

    All must ask; the others do not run `make`.
    """
    if jax.process_count() == 1:
        return jax.device_get(make())
    shapes = jax.eval_shape(make)
    own = make() if is_first() else jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(jax.device_get(own)))


def clock_skew() -> int:
    """Seconds between the earliest and the latest clock of the processes; all must ask."""
    if jax.process_count() == 1:
        return 0
    clocks = multihost_utils.process_allgather(np.asarray(int(time.time()), np.int32))
    return int(clocks.max() - clocks.min())
