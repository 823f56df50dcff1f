"""Compiled texts (HLO) read: computations, instructions, what runs how often."""

import math
import re
from typing import NamedTuple

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
SIZES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}


class Instruction(NamedTuple):
    """A line of a computation, `%name = shape opcode(arguments)rest`.

    Attributes:
      name: without the sign before it.
      shape: of its result.
      opcode: e.g. "fusion".
      arguments: what stands in its brackets.
      rest: what stands behind them.
      is_root: whether its result is the computation's.
    """

    name: str
    shape: str
    opcode: str
    arguments: str
    rest: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        return re.findall(r"%([\w.\-]+)", self.arguments)


def read_instruction(line: str) -> Instruction | None:
    """The instruction of a line, None where it holds none."""
    match = re.match(r"\s*(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(", line)
    if match is None:
        return None
    depth, end = 1, match.end()
    while depth and end < len(line):
        depth += {"(": 1, ")": -1}.get(line[end], 0)
        end += 1
    arguments = line[match.end() : end - 1]
    return Instruction(match[2], match[3], match[4], arguments, line[end:], bool(match[1]))


def bytes_of(shape: str) -> int:
    """Bytes of a shape, e.g. "(f32[8,4]{1,0}, bf16[2])"."""
    total = 0
    for kind, sides in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shape):
        total += SIZES.get(kind, 0) * math.prod(int(n) for n in sides.split(",") if n)
    return total


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by its name, and the name of the entry ("" without one)."""
    found: dict[str, list[str]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line)
        if head:
            name = head[2]
            found[name], entry = [], name if head[1] else entry
        elif name:
            found[name].append(line)
    return found, entry


def executed_lines(text: str) -> list[tuple[str, int]]:
    """Instructions of a compiled text's entry and of what it calls, each with how often it runs.

    Loops whose length the text does not say count once.
    """
    by_name, entry = computations(text)
    found: list[tuple[str, int]] = []

    def walk(name: str, times: int) -> None:
        for line in by_name.get(name, []):
            found.append((line, times))
            loop = re.search(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)", line)
            if loop:
                walk(loop[2], times * _loop_length(line, by_name.get(loop[1], [])))
            called = re.search(r" (?:call|async-start)\(.*(?:to_apply|calls)=%([\w.\-]+)", line)
            if called:
                walk(called[1], times)

    walk(entry, 1)
    return found


def _loop_length(line: str, condition: list[str]) -> int:
    """Turns of a loop that says so, or counts from zero to a constant; 1 for others."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
    if known:
        return int(known[1])
    compared = [line for line in condition if "direction=LT" in line]
    limits = re.findall(r" constant\((\d+)\)", "\n".join(condition))
    return int(limits[0]) if len(compared) == len(limits) == 1 else 1
