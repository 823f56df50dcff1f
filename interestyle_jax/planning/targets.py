"""Machines to plan for: their chips' figures, and devices of theirs to compile for."""

import dataclasses
import importlib.util
import os
import re
from pathlib import Path

import jax
from jax.experimental import topologies

from interestyle_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of device.

    Attributes:
      platform: "tpu", "gpu" or "cpu", as `models.backend` names it.
      memory: bytes of a device that programs may use, None where the machine decides.
      flops: bfloat16 operations a second at most, None where unknown.
      bandwidth: bytes a second from and to its memory at most, None where unknown.
      clock: cycles a second of the compiler's estimates, None where there are none.
    """

    platform: str
    memory: float | None = None
    flops: float | None = None
    bandwidth: float | None = None
    clock: float | None = None


# Peak figures of the makers' data sheets; what a TPU's compiler leaves for programs is a little
# less than its memory, and is the compiler's own figure where a program does not fit.
CHIPS = {
    "v4": Chip("tpu", 32 * GIB, 275e12, 1228e9, 1.05e9),
    "v5e": Chip("tpu", 15.75 * GIB, 197e12, 819e9, 1.5e9),
    "v5p": Chip("tpu", 95 * GIB, 459e12, 2765e9, 1.75e9),
    "v6e": Chip("tpu", 31.25 * GIB, 918e12, 1640e9),
    "h100": Chip("gpu", 80e9, 989e12, 3352e9),
    "a100": Chip("gpu", 80e9, 312e12, 2039e9),
    "cpu": Chip("cpu"),
}


# Of libtpu, where no TPU is: nothing is asked of a cloud, and its warnings of that are not shown.
COMPILING_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine.

    Attributes:
      text: as it was given, e.g. "v5e:4x4".
      name: of its chip, a key of `CHIPS`.
      topology: of a TPU slice, e.g. "4x4"; else "".
      num_devices: how many devices it has.
    """

    text: str
    name: str
    topology: str
    num_devices: int

    @property
    def chip(self) -> Chip:
        """Its devices' figures."""
        return CHIPS[self.name]

    def devices(self) -> list[jax.Device]:
        """Devices to compile for; nothing runs on them.

        Raises:
          InputError: the compiler is not installed, or it does not know the topology.
        """
        if self.chip.platform == "cpu":
            found = jax.devices("cpu")
            if len(found) < self.num_devices:
                raise InputError(
                    f"--target: {self.text}, but this process has {len(found)} CPU devices; set "
                    f"XLA_FLAGS=--xla_force_host_platform_device_count={self.num_devices}"
                )
            return found[: self.num_devices]
        if self.chip.platform == "gpu":
            return _gpu_devices(self)
        return _tpu_devices(self)


def parse_target(text: str) -> Target:
    """A target by its name: "v5e:4x4", "v4:2x2x1", "h100x8", "a100", "cpu", "cpux8".

    Raises:
      InputError: unknown chip or form; lists the known ones.
    """
    tpu = re.fullmatch(r"(v\d\w*):(\d+(?:x\d+){1,2})", text)
    other = re.fullmatch(r"(h100|a100|cpu)(?:x(\d+))?", text)
    if tpu and tpu[1] in CHIPS:
        sides = [int(n) for n in tpu[2].split("x")]
        count = 1
        for side in sides:
            count *= side
        if count:
            return Target(text, tpu[1], tpu[2], count)
    if other and int(other[2] or 1):
        return Target(text, other[1], "", int(other[2] or 1))
    raise InputError(
        f"--target: {text!r}, expected a TPU slice such as v5e:4x4 (v4, v5e, v5p, v6e), GPUs such "
        "as h100x8 or a100x4, or cpu"
    )


def keep_to_processor(target: Target) -> None:
    """Before JAX is used in a process that plans: it looks for no device, whatever is installed.

    What a compiler would measure on a device it guesses.
    """
    jax.config.update("jax_platforms", "cpu")
    if target.chip.platform == "gpu":
        flags = os.environ.get("XLA_FLAGS", "")
        if "xla_gpu_autotune_level" not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()


def _tpu_devices(target: Target) -> list[jax.Device]:
    found = importlib.util.find_spec("libtpu")
    if "TPU_LIBRARY_PATH" not in os.environ:
        if found is None or not found.submodule_search_locations:
            raise InputError(
                "--target: the compiler of TPUs is not installed; pip install "
                '"interestyle_jax[plan-tpu]"'
            )
        folder = Path(next(iter(found.submodule_search_locations)))
        os.environ["TPU_LIBRARY_PATH"] = str(folder / "libtpu.so")
    for name, value in COMPILING_ALONE.items():
        os.environ.setdefault(name, value)
    # The two cores of a v4 are one device, as JAX has them on a real one.
    options = {"chip_config_name": "megacore"} if target.name == "v4" else {}
    try:
        name = f"{target.name}:{target.topology}"
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        raise InputError(f"--target: {target.text}: {str(error).splitlines()[0]}") from error
    return list(topology.devices)


def _gpu_devices(target: Target) -> list[jax.Device]:
    config = Path(__file__).parent / "gpus" / f"{target.name}.txtpb"
    try:
        topology = topologies.get_topology_desc(
            f"{target.num_devices}x1x1",
            platform="cuda",
            target_config=config.read_text(encoding="utf-8"),
            topology=f"{target.num_devices}x1x1",
        )
    except Exception as error:
        if importlib.util.find_spec("jax_cuda13_plugin") is None:
            raise InputError(
                "--target: the compiler of NVIDIA GPUs is not installed; pip install "
                '"interestyle_jax[plan-gpu]"'
            ) from error
        raise InputError(f"--target: {target.text}: {str(error).splitlines()[0]}") from error
    return list(topology.devices)
