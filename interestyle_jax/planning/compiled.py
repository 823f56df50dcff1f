"""What a compiled program says of itself: memory, work, traffic, collectives, cycles."""

import collections
import dataclasses
import re
from typing import Any

from interestyle_jax.planning.hlo_text import bytes_of, executed_lines
from interestyle_jax.planning.traffic import bytes_accessed

# Cycles above this are the compiler's way to say that it does not know.
UNKNOWN_CYCLES = 10**12
# Parts of an operation's name that are no layer.
AROUND = {"step", "while", "body", "cond", "closed_call", "checkpoint", "rematted_computation"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind.

    Attributes:
      kind: as HLO names it, e.g. "all-reduce".
      devices: how many take part in each.
      count: instructions.
      bytes: of their results, a device.
    """

    kind: str
    devices: int
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Figures:
    """A compiled program's figures, a device and call.

    Attributes:
      memory: {"arguments", "outputs", "aliased", "temporaries"}: bytes.
      flops: as the compiler counts them, None where it does not, or counts loops once.
      bytes_accessed: see `traffic.bytes_accessed`.
      collectives: by kind and group.
      cycles: the compiler's estimate, None where it gives none (GPUs, CPUs).
      cycles_by_layer: {layer: cycles}, the costliest first.
      convolutions: {library call: how many in the text} (GPUs).
      up_convolutions: {kind: how many in the text}, see `up_convolutions`.
      copies: copies and transposes that run, alone or as a fusion's purpose.
      zero_inserted: maps in the text that get zeros between their elements: operands of
        up-convolutions that a library computes as plain ones, and gradients of strided slices.
      num_instructions: lines of the compiled text.
    """

    memory: dict[str, int]
    flops: float | None
    bytes_accessed: int
    collectives: list[Collectives]
    cycles: int | None
    cycles_by_layer: dict[str, int]
    convolutions: dict[str, int]
    up_convolutions: dict[str, int]
    copies: int
    zero_inserted: int
    num_instructions: int


def read_figures(compiled: Any, *, num_devices: int) -> Figures:
    """The figures of a `jax.stages.Compiled` for so many devices."""
    text, plan = compiled.as_text(), compiled.memory_analysis()
    loops = any(times > 1 for _, times in executed_lines(text))
    cost = {} if loops else compiled.cost_analysis() or {}
    cycles = cycles_by_layer(text)
    return Figures(
        memory={
            "arguments": plan.argument_size_in_bytes,
            "outputs": plan.output_size_in_bytes,
            "aliased": plan.alias_size_in_bytes,
            "temporaries": plan.temp_size_in_bytes,
        },
        flops=cost.get("flops"),
        bytes_accessed=bytes_accessed(text),
        collectives=collectives(text, num_devices),
        cycles=sum(cycles.values()) if cycles else None,
        cycles_by_layer=cycles,
        convolutions=dict(collections.Counter(re.findall(r"__cudnn\$(conv\w+)", text))),
        up_convolutions=up_convolutions(text),
        copies=num_copies(text),
        zero_inserted=num_zero_inserted(text),
        num_instructions=text.count("\n"),
    )


def num_copies(text: str) -> int:
    """Copies and transposes among the executed lines of a compiled text, loops' turns counted."""
    alone = r" (?:copy|copy-start|transpose)\("
    fused = r"%[\w.\-]*(?:copy|transpose)[\w.\-]* = .* fusion\("
    return sum(times for line, times in executed_lines(text) if re.search(f"{alone}|{fused}", line))


def up_convolutions(text: str) -> dict[str, int]:
    """The convolutions of the generator's layers `up_...` in a compiled text, by kind.

    Kinds are GPUs' library calls ("convBackwardInput"); elsewhere "over zeros" where zeros stand
    between the pixels of the map, and "plain".
    """
    found: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        if not re.search(r'op_name="[^"]*/up_\d+/[^"]*conv_general_dilated', line):
            continue
        call = re.search(r"__cudnn\$(conv\w+)", line)
        if call:
            found[call[1]] += 1
        elif " convolution(" in line:
            found["over zeros" if "lhs_dilate=" in line else "plain"] += 1
    return dict(found)


def num_zero_inserted(text: str) -> int:
    """Pads of a compiled text that put zeros between elements, not only around them."""
    return len(re.findall(r" pad\(.*padding=\S*?-?\d+_-?\d+_[1-9]", text))


def cycles_by_layer(text: str) -> dict[str, int]:
    """The compiler's estimated cycles of a TPU program, by the layer an operation came from."""
    found: collections.Counter[str] = collections.Counter()
    for line, times in executed_lines(text):
        cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
        if cycles is None or int(cycles[1]) > UNKNOWN_CYCLES:
            continue
        name = re.search(r'op_name="([^"]*)"', line)
        found[layer(name[1] if name else "")] += times * int(cycles[1])
    return dict(found.most_common())


def layer(op_name: str) -> str:
    """The network and layer in an operation's name, without the functions around them.

    "jit(step)/transpose(jvp(Generator.synthesize))/up_64/conv/add" is "Generator/up_64/conv,
    backward".
    """
    parts = [re.sub(r"^.*\(|\)+$", "", part) for part in op_name.split("/")[:-1]]
    networks = [part.split(".")[0] for part in parts if re.match(r"[A-Z]\w*(\.|$)", part)]
    layers = [part for part in parts if re.fullmatch(r"[a-z]\w*", part) and part not in AROUND]
    named = [*networks[:1], *(layers[-2:] if networks else layers[-3:])]
    text = "/".join(named) or "elsewhere"
    return f"{text}, backward" if "transpose(" in op_name else text


def collectives(text: str, num_devices: int) -> list[Collectives]:
    """The collectives of a compiled text, by kind and the number of devices that take part."""
    found: dict[tuple[str, int], list[int]] = collections.defaultdict(list)
    pattern = re.compile(r" = (\S+|\(.*?\)) (" + "|".join(COLLECTIVES) + r")(?:-start)?\(")
    for line, times in executed_lines(text):
        match = pattern.search(line)
        if match is not None:
            found[match[2], _group(line, num_devices)] += times * [bytes_of(match[1])]
    return [
        Collectives(kind, devices, len(sizes), sum(sizes))
        for (kind, devices), sizes in sorted(found.items())
    ]


def _group(line: str, num_devices: int) -> int:
    """Devices in a group of `replica_groups`, in either of its two spellings."""
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota is not None:
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(listed[1].split(",")) if listed and listed[1] else num_devices
