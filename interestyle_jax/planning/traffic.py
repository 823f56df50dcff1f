"""Bytes that a compiled program reads and writes, loops' turns counted.

Compilers count once what a loop accesses, and say nothing of GPUs' programs.
"""

import functools
import re

from interestyle_jax.planning.hlo_text import (
    Instruction,
    bytes_of,
    computations,
    executed_lines,
    read_instruction,
)

# What moves nothing: other names of results, and what is counted where it is done.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"}
FREE |= {"while", "call", "conditional", "opt-barrier", "partition-id"}
# Of these the result says what is read.
SLICES = ("dynamic-slice", "slice", "gather")
# {operand: bytes of it that are read}, and bytes that are written, where these are not the whole.
Parts = tuple[dict[int, int], int | None]


def bytes_accessed(text: str) -> int:
    """Operands and results of what runs in a compiled text, a device and call.

    Of a fusion its own, not those of its insides; of an array that it takes or changes a slice of,
    the slice; of copies that run beside others (`copy-start`, `copy-done`) what they move.
    """
    by_name, _ = computations(text)
    lines = (line for lines in by_name.values() for line in lines)
    shapes = {found.name: found.shape for found in map(read_instruction, lines) if found}

    @functools.cache
    def parts_of_fusion(name: str) -> Parts:
        inside = [found for found in map(read_instruction, by_name.get(name, [])) if found]
        return _parts_of_fusion(inside, shapes)

    total = 0
    for line, times in executed_lines(text):
        found = read_instruction(line)
        # Pieces that were fetched side by side are joined without a move.
        if found is None or found.opcode in FREE or "ConcatBitcast" in found.rest:
            continue
        if found.opcode.endswith("-start"):
            continue
        if found.opcode.endswith("-done"):
            total += times * 2 * bytes_of(found.shape)
            continue
        called = re.search(r"calls=%([\w.\-]+)", found.rest)
        if found.opcode == "fusion" and called:
            read, written = parts_of_fusion(called[1])
        else:
            read, written = _parts(found, shapes)
        moved = bytes_of(found.shape) if written is None else written
        for i, operand in enumerate(found.operands):
            moved += read.get(i, bytes_of(shapes.get(operand, "")))
        total += times * moved
    return total


def _parts(found: Instruction, shapes: dict[str, str]) -> Parts:
    if found.opcode in SLICES:
        return {0: bytes_of(found.shape)}, None
    if found.opcode == "dynamic-update-slice":
        return {0: 0}, bytes_of(shapes.get(found.operands[1], ""))
    return {}, None


def _parts_of_fusion(inside: list[Instruction], shapes: dict[str, str]) -> Parts:
    """Of a fusion's operands, the parameters of its computation."""
    read: dict[int, int] = {}
    for parameter in inside:
        if parameter.opcode != "parameter":
            continue
        users = [user for user in inside if parameter.name in user.operands]
        sizes = [
            _parts(user, shapes)[0].get(0) if user.operands[0] == parameter.name else None
            for user in users
        ]
        if users and None not in sizes:
            read[int(parameter.arguments)] = sum(size or 0 for size in sizes)
    by_name = {found.name: found for found in inside}
    root = next((found for found in inside if found.is_root), None)
    while root is not None and root.opcode == "bitcast":
        root = by_name.get(root.operands[0])
    return read, _parts(root, shapes)[1] if root else None
