"""Seeded damage to files: bytes and JSON fields changed, archives rewritten, files swapped."""

import io
import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator
# What stands where a file should be: other people's mistakes.
GIT_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
WEB_PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></html>"
WILD_VALUES = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**70, 0.5, 1e308, math.nan, -math.inf),
    *("", "x", "1", "../..", "\u2460", "a\nb", "\ud800", "x" * 5000, "os.system", "float99"),
    *([], [0], [-1, 2], {}, {"a": 1}, [[[[]]]]),
)  # fmt: skip


class _Payload:
    """What executes when it is unpickled: it makes a file."""

    def __init__(self, canary: Path):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def payload(canary: Path, protocol: int = 2) -> bytes:
    """A pickle that makes the directory `canary` when it is read as pickles are."""
    return pickle.dumps({"state_dict": _Payload(canary)}, protocol=protocol)


def damage_file(rng: Rng, path: Path, canary: Path) -> str:
    """Damages one file in place, or what lies there; returns what was done."""
    kinds: list[Callable] = [_bytes] * 6
    if path.suffix in (".json", ".jsonl"):
        kinds += [_json] * 9
    if zipfile.is_zipfile(path):
        kinds += [_archive] * 6
    kinds += [_swapped, _instead, _executable]
    kind = kinds[rng.integers(len(kinds))]
    return f"{path.name}: {kind(rng, path, canary)}"


def damage_bytes(rng: Rng, data: bytes) -> tuple[bytes, str]:
    """(damaged bytes, what was done): cut, flipped, zeroed, inserted, removed or swapped."""
    size = len(data)
    if size < 4:
        return b"", "emptied"
    changed = bytearray(data)
    # Headers and trailers are small, and most of what can go wrong is in them.
    place = rng.choice(["anywhere", "start", "end"], p=[0.5, 0.3, 0.2])
    low, high = {"start": (0, min(64, size)), "end": (max(0, size - 128), size)}.get(
        place, (0, size)
    )
    at = int(rng.integers(low, high))
    length = int(min(1 + rng.exponential(size / 20), size - at))
    kind = rng.choice(["cut", "flip", "zero", "insert", "remove", "swap", "add"])
    if kind == "cut":
        del changed[at:]
    elif kind == "flip":
        for position in {at, *rng.integers(low, high, rng.integers(0, 8)).tolist()}:
            changed[position] ^= 1 << int(rng.integers(8))
    elif kind == "zero":
        changed[at : at + length] = bytes(length)
    elif kind == "insert":
        changed[at:at] = rng.bytes(length)
    elif kind == "remove":
        del changed[at : at + length]
    elif kind == "swap":
        other = int(rng.integers(0, size - length + 1))
        here, there = changed[at : at + length], changed[other : other + length]
        changed[at : at + length], changed[other : other + length] = there, here
    else:
        changed += rng.bytes(length)
    return bytes(changed), f"{kind} at {at} of {size}, {length} bytes"


def damage_json(rng: Rng, content: object) -> str:
    """Replaces, removes or adds a field of nested dicts and lists in place; says which."""
    places: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    if isinstance(content, dict | list):
        walk(content)
    if not places:
        return "nothing to replace"
    node, key = places[rng.integers(len(places))]
    kind = rng.choice(["replace", "remove", "add"], p=[0.7, 0.2, 0.1])
    wild = WILD_VALUES[rng.integers(len(WILD_VALUES))]
    if kind == "remove":
        del node[key]
    elif kind == "replace":
        node[key] = wild
    elif isinstance(node, dict):
        node["more"] = wild
    else:
        node.append(wild)
    return f"{kind} field {key!r} with {str(wild)[:40]!r}"


def _bytes(rng: Rng, path: Path, canary: Path) -> str:
    data, done = damage_bytes(rng, path.read_bytes())
    path.write_bytes(data)
    return done


def _json(rng: Rng, path: Path, canary: Path) -> str:
    lines = [path.read_text(encoding="utf-8")]
    if path.suffix == ".jsonl":
        lines = lines[0].splitlines()
    if rng.random() < 0.1:
        # Python's reader goes one call deeper for each of them.
        path.write_text("[" * 100_000, encoding="utf-8")
        return "100,000 brackets"
    at = int(rng.integers(len(lines))) if lines else 0
    content = json.loads(lines[at])
    if rng.random() < 0.1:
        content, done = WILD_VALUES[rng.integers(len(WILD_VALUES))], "replaced as a whole"
    else:
        done = damage_json(rng, content)
    lines[at] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return done


def _archive(rng: Rng, path: Path, canary: Path) -> str:
    """Damages an entry of a zip file and writes it with the right checksums."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    # The pickle is one entry of many, and the one that is interpreted.
    names = sorted(entries, key=lambda name: not name.endswith(".pkl"))
    name = names[0] if rng.random() < 0.5 else names[rng.integers(len(names))]
    kind = rng.random()
    if kind < 0.1:
        del entries[name]
        done = "removed"
    elif kind < 0.2:
        entries[name], done = payload(canary), "a pickle that executes"
    else:
        entries[name], done = damage_bytes(rng, entries[name])
    buffer = io.BytesIO()
    compression = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for entry, data in entries.items():
            # An entry of its own, or its name would bring the time of day along.
            archive.writestr(zipfile.ZipInfo(entry), data, compress_type=compression)
    path.write_bytes(buffer.getvalue())
    return f"entry {name}: {done}"


def _swapped(rng: Rng, path: Path, canary: Path) -> str:
    """Another file's content of the same folder, or what people save instead of a file."""
    others = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    choices = [GIT_LFS, WEB_PAGE, b"", rng.bytes(200), *(p.read_bytes() for p in others)]
    at = int(rng.integers(len(choices)))
    path.write_bytes(choices[at])
    return f"content {at} of {len(choices)} instead"


def _instead(rng: Rng, path: Path, canary: Path) -> str:
    """No file: nothing, a directory, or a link that leads nowhere or to itself."""
    kind = rng.choice(["nothing", "directory", "dead link", "circular link"])
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "dead link":
        path.symlink_to(path.with_name("not_there"))
    elif kind == "circular link":
        path.symlink_to(path)
    return f"{kind} instead"


def _executable(rng: Rng, path: Path, canary: Path) -> str:
    """A pickle that executes, bare or as the one object of a `.npy`."""
    data = payload(canary, protocol=int(rng.integers(0, 5)))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        np.save(buffer, np.array({"a": _Payload(canary)}, dtype=object), allow_pickle=True)
        data = buffer.getvalue()
    path.write_bytes(data)
    return "a pickle that executes instead"
