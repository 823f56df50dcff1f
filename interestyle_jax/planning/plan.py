"""A plan: programs compiled for a target, their figures, and the table that is printed."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from interestyle_jax.errors import InputError
from interestyle_jax.library_versions import library_versions
from interestyle_jax.planning.compiled import Figures, read_figures
from interestyle_jax.planning.counted_work import Work
from interestyle_jax.planning.programs import Program, programs
from interestyle_jax.planning.stand_ins import use_stand_ins
from interestyle_jax.planning.targets import GIB, Target

COSTLIEST = 10
# The largest batch is looked for up to this many images a device.
MOST_PER_DEVICE = 4096


def make_plan(
    config: ml_collections.ConfigDict,
    target: Target,
    *,
    command: str = "train",
    generator: Mapping[str, Any] | None = None,
    largest_batch: bool = False,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compiles the programs of a run for a target, without a device, weights or data.

    Args:
      config: of the training; changed in place where weights are not here.
      target: where it would run.
      command: see `programs`.
      generator: fields of the generator, where its weights are not here; the official 1024 one's.
      largest_batch: also look for the largest batch that fits, see `_largest_batch`.
      tell: takes a line of progress.

    Returns:
      A JSON-able dict; `markdown` shows it.

    Raises:
      InputError: see `programs` and `Target.devices`.
    """
    if largest_batch and target.chip.memory is None:
        raise InputError(f"--largest-batch: the memory of {target.text} is the machine's own")
    with tempfile.TemporaryDirectory(prefix="interestyle_plan_") as folder:
        stand_ins = use_stand_ins(config, Path(folder), generator=generator or {})
        found = [
            _compile(p, config, target, tell) for p in programs(config, target, command=command)
        ]
        largest = None
        if largest_batch:
            largest = _largest_batch(config, target, command, found, tell)
    return {
        "target": target.text,
        "chip": target.name,
        "num_devices": target.num_devices,
        "command": command,
        "batch_size": config.batch_size,
        "memory_bytes": target.chip.memory,
        "stand_ins": stand_ins,
        "programs": found,
        "largest_batch": largest,
        "versions": library_versions(),
    }


def _compile(
    program: Program,
    config: ml_collections.ConfigDict,
    target: Target,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    name = " with ".join(["the program", *program.phase])
    tell(f"compiling {name} for {target.text}: this takes minutes for large networks")
    begun = time.perf_counter()
    own: dict[str, Any] = {
        "phase": list(program.phase),
        "share": program.share,
        "bytes_by_kind": program.bytes_by_kind,
        "trace_seconds": program.trace_seconds,
    }
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        # The compiler's first line says how much is used of how much.
        return {**own, "fits": False, "reason": str(error).splitlines()[0]}
    seconds = time.perf_counter() - begun
    figures = read_figures(compiled, num_devices=target.num_devices)
    return {
        **own,
        "compile_seconds": seconds,
        **_figures(figures, program.work, config.batch_size // target.num_devices, target),
    }


def _figures(figures: Figures, work: Work, images: int, target: Target) -> dict[str, Any]:
    """The figures of a device as JSON, with what follows from them for an image.

    Work and floor are those of the traced program: compilers count zeros too, or nothing.
    """
    memory, chip = figures.memory, target.chip
    needed = memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]
    seconds = mfu = None
    work = work.times(1.0 / target.num_devices)
    if figures.cycles is not None and chip.clock:
        seconds = figures.cycles / chip.clock
        if chip.flops and seconds:
            mfu = work.flops / chip.flops / seconds
    total = figures.cycles or 1
    return {
        "fits": None if chip.memory is None else needed <= chip.memory,
        "needed_bytes": needed,
        "memory": memory,
        "flops_per_image": work.flops / images,
        "compiled_flops_per_image": figures.flops and figures.flops / images,
        "bytes_per_image": figures.bytes_accessed / images,
        "floor_seconds_per_image": _floor(work, images, target),
        "estimated_seconds": seconds,
        "estimated_seconds_per_image": seconds and seconds / images,
        "mfu": mfu,
        "collectives": [vars(c) for c in figures.collectives],
        "costliest": {
            layer: cycles / total
            for layer, cycles in list(figures.cycles_by_layer.items())[:COSTLIEST]
        },
        "convolutions": figures.convolutions,
        "up_convolutions": figures.up_convolutions,
        "copies": figures.copies,
        "zero_inserted": figures.zero_inserted,
        "num_instructions": figures.num_instructions,
    }


def _floor(work: Work, images: int, target: Target) -> float | None:
    """Seconds an image that its work or its least traffic takes at the chip's peak, the larger."""
    chip = target.chip
    if not (chip.flops and chip.bandwidth):
        return None
    return max(work.flops / chip.flops, work.bytes / chip.bandwidth) / images


def _largest_batch(
    config: ml_collections.ConfigDict,
    target: Target,
    command: str,
    found: Sequence[Mapping[str, Any]],
    tell: Callable[[str], None],
) -> int | None:
    """The given batch times a power of two, the largest that fits; None where one image does not.

    What a program needs grows by the same for every image, so two batches that fit say which
    others do; the one that is returned was compiled too. Only the neediest program is compiled
    again, or all that do not fit: of those it may not be known.
    """
    indices = [i for i, program in enumerate(found) if not program["fits"]]
    fitted = not indices
    indices = indices or [max(range(len(found)), key=lambda i: found[i]["needed_bytes"])]
    given, most = config.batch_size, MOST_PER_DEVICE * target.num_devices
    needed: dict[int, float] = {}

    def fits(batch: int) -> bool:
        config.batch_size = batch
        traced = programs(config, target, command=command)
        made = [_compile(traced[i], config, target, tell) for i in indices]
        if not all(program["fits"] for program in made):
            return False
        needed[batch] = max(program["needed_bytes"] for program in made)
        return True

    try:
        if not fitted:
            batch = given // 2
            while batch >= target.num_devices and not fits(batch):
                batch //= 2
            return batch if batch >= target.num_devices else None
        needed[given] = found[indices[0]]["needed_bytes"]
        if 2 * given > most or not fits(2 * given):
            return given
        an_image = max(1.0, (needed[2 * given] - needed[given]) / given)
        assert target.chip.memory is not None  # `make_plan` has asked.
        room = given + (target.chip.memory - needed[given]) / an_image
        batch = 2 * given
        while 2 * batch <= min(room, most):
            batch *= 2
        while batch not in needed and not fits(batch):
            batch //= 2
        return batch
    finally:
        config.batch_size = given


def markdown(plan: Mapping[str, Any]) -> str:
    """A plan as the table that a person reads."""
    memory = plan["memory_bytes"]
    lines = [
        f"`{plan['command']}` on {plan['target']}: devices {plan['num_devices']}, batch "
        f"{plan['batch_size']} ({plan['batch_size'] // plan['num_devices']} a device)",
        "",
    ]
    lines += [f"- weights.{field}: {told}" for field, told in plan["stand_ins"].items()]
    for program in plan["programs"]:
        lines += ["", f"### {_name(program, plan['command'])}", ""]
        lines += _memory_lines(program, memory)
        if "memory" not in program:
            continue
        lines += [""] + [f"| {a} | {b} |" for a, b in _rows(program)]
        if program["collectives"]:
            lines += ["", "| collective | devices | how many | MiB |", "|---|---:|---:|---:|"]
            lines += [
                f"| {c['kind']} | {c['devices']} | {c['count']} | {c['bytes'] / 2**20:.1f} |"
                for c in program["collectives"]
            ]
        if program["costliest"]:
            lines += ["", "| layer, by the compiler's estimate | share |", "|---|---:|"]
            lines += [f"| {k} | {100 * v:.1f} % |" for k, v in program["costliest"].items()]
    if plan["largest_batch"] is not None:
        lines += ["", f"The largest batch that fits: {plan['largest_batch']}."]
    return "\n".join(lines) + "\n"


def _name(program: Mapping[str, Any], command: str) -> str:
    if command != "train":
        return {"invert": "An inversion", "evaluate": "A measurement"}[command]
    phase = " with " + ", ".join(program["phase"]) if program["phase"] else ""
    share = 100 * program["share"]
    return f"A step{phase}" + (f", {share:.3g} % of the steps" if share < 100 else "")


def _memory_lines(program: Mapping[str, Any], memory: float | None) -> list[str]:
    lines = ["| memory of a device | GiB |", "|---|---:|"]
    kinds = program["bytes_by_kind"].items()
    lines += [f"| {k} | {v / GIB:.2f} |" for k, v in kinds if v >= 0.005 * GIB]
    if "memory" not in program:
        return [*lines, "", f"**It does not fit**: {program['reason']}"]
    lines.append(f"| temporaries | {program['memory']['temporaries'] / GIB:.2f} |")
    lines.append(f"| **needed** | **{program['needed_bytes'] / GIB:.2f}** |")
    if memory is not None:
        lines.append(f"| there is | {memory / GIB:.2f} |")
        lines += ["", "It fits." if program["fits"] else "**It does not fit.**"]
    return lines


def _rows(program: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and figures, of those that the compiler gives."""
    rows = [("a device and image", ""), ("---", "---:")]

    def add(name: str, value: float | None, scale: float, unit: str) -> None:
        if value:
            rows.append((name, f"{value * scale:.3g} {unit}"))

    add("work", program["flops_per_image"], 1e-12, "TFLOP")
    add("work as compiled", program["compiled_flops_per_image"], 1e-12, "TFLOP")
    add("bytes accessed", program["bytes_per_image"], 1e-9, "GB")
    add("floor, by work or traffic", program["floor_seconds_per_image"], 1e3, "ms")
    add("the compiler's estimate", program["estimated_seconds_per_image"], 1e3, "ms")
    add("the same, a call", program["estimated_seconds"], 1e3, "ms")
    add("MFU at that estimate", program["mfu"], 100, "%")
    add("compiling took", program["compile_seconds"], 1, "s")
    rows += [(f"convolutions {k}", str(n)) for k, n in sorted(program["convolutions"].items())]
    rows.append(("copies and transposes", str(program["copies"])))
    return rows
