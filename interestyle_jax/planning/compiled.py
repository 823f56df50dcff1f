"""What a compiled program says of itself: memory, work, traffic, collectives, cycles."""

import collections
import dataclasses
import math
import re
from typing import Any

# Cycles above this are the compiler's way to say that it does not know.
UNKNOWN_CYCLES = 10**12
# Parts of an operation's name that are no layer.
AROUND = {"step", "while", "body", "cond", "closed_call", "checkpoint", "rematted_computation"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
SIZES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}


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
      bytes_accessed: likewise.
      collectives: by kind and group.
      cycles: the compiler's estimate, None where it gives none (GPUs, CPUs).
      cycles_by_layer: {layer: cycles}, the costliest first.
      convolutions: {library call: how many in the text} (GPUs).
      copies: copies and transposes that run, alone or as a fusion's purpose.
      zero_inserted: maps in the text that get zeros between their elements: operands of
        up-convolutions that a library computes as plain ones, and gradients of strided slices.
      num_instructions: lines of the compiled text.
    """

    memory: dict[str, int]
    flops: float | None
    bytes_accessed: float | None
    collectives: list[Collectives]
    cycles: int | None
    cycles_by_layer: dict[str, int]
    convolutions: dict[str, int]
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
        bytes_accessed=cost.get("bytes accessed"),
        collectives=collectives(text, num_devices),
        cycles=sum(cycles.values()) if cycles else None,
        cycles_by_layer=cycles,
        convolutions=dict(collections.Counter(re.findall(r"__cudnn\$(conv\w+)", text))),
        copies=num_copies(text),
        zero_inserted=num_zero_inserted(text),
        num_instructions=text.count("\n"),
    )


def num_copies(text: str) -> int:
    """Copies and transposes among the executed lines of a compiled text, loops' turns counted."""
    alone = r" (?:copy|copy-start|transpose)\("
    fused = r"%[\w.\-]*(?:copy|transpose)[\w.\-]* = .* fusion\("
    return sum(times for line, times in executed_lines(text) if re.search(f"{alone}|{fused}", line))


def num_zero_inserted(text: str) -> int:
    """Pads of a compiled text that put zeros between elements, not only around them."""
    return len(re.findall(r" pad\(.*padding=\S*?-?\d+_-?\d+_[1-9]", text))


def executed_lines(text: str) -> list[tuple[str, int]]:
    """Instructions of a compiled text's entry and of what it calls, each with how often it runs.

    Loops whose length the text does not say count once.
    """
    computations: dict[str, list[str]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line)
        if head:
            name = head[2]
            computations[name], entry = [], name if head[1] else entry
        elif name:
            computations[name].append(line)
    found: list[tuple[str, int]] = []

    def walk(name: str, times: int) -> None:
        for line in computations.get(name, []):
            found.append((line, times))
            loop = re.search(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)", line)
            if loop:
                walk(loop[2], times * _loop_length(computations.get(loop[1], [])))
            called = re.search(r" (?:call|async-start)\(.*(?:to_apply|calls)=%([\w.\-]+)", line)
            if called:
                walk(called[1], times)

    walk(entry, 1)
    return found


def _loop_length(condition: list[str]) -> int:
    """Turns of a loop that counts from zero to a constant, 1 for others."""
    compared = [line for line in condition if "direction=LT" in line]
    limits = re.findall(r" constant\((\d+)\)", "\n".join(condition))
    return int(limits[0]) if len(compared) == len(limits) == 1 else 1


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
            found[match[2], _group(line, num_devices)] += times * [_bytes(match[1])]
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


def _bytes(shape: str) -> int:
    """Bytes of a result, e.g. "(f32[8,4]{1,0}, bf16[2])"."""
    total = 0
    for kind, sides in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shape):
        total += SIZES.get(kind, 0) * math.prod(int(n) for n in sides.split(",") if n)
    return total
