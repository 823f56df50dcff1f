"""What lies beside the shards of a data set: `manifest.json` (checksums) and `report.json`."""

import collections
import concurrent.futures
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from interestyle_jax.checksum import file_sha256
from interestyle_jax.data.data_format import FORMAT
from interestyle_jax.data.shards import ShardRecord, Skipped
from interestyle_jax.errors import InputError
from interestyle_jax.json_file import read_json

NAME = "manifest.json"


def manifest(
    directory: Path,
    sums: Mapping[str, ShardRecord],
    *,
    options: Mapping[str, Any],
    sources: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """The content of `manifest.json`; it depends on the data set's content alone.

    Args:
      directory: the data set, whole but for the manifest.
      sums: {file: record} of its shards; the other files are read here.
      options: what decided the content.
      sources: (name, bytes) of the files it was made of.

    Returns:
      {"format", "options", "sources": {"files", "bytes", "sha256"}, "files": {name: {"bytes",
      "sha256", "examples" (of shards)}}}; the sources' SHA-256 is that of lines "NAME<tab>BYTES".
    """
    files = {}
    for path in sorted(p for p in directory.iterdir() if p.name != NAME):
        if path.name in sums:
            record = sums[path.name]
            files[path.name] = {
                "bytes": record.bytes, "sha256": record.sha256, "examples": record.examples,
            }  # fmt: skip
        else:
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    lines = "".join(f"{name}\t{size}\n" for name, size in sources)
    return {
        "format": FORMAT,
        "options": dict(options),
        "sources": {
            "files": len(sources),
            "bytes": sum(size for _, size in sources),
            "sha256": hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest(),
        },
        "files": files,
    }


def report(
    written: Mapping[str, int], skipped: Sequence[Skipped], *, notes: Sequence[str], stopped: bool
) -> dict[str, Any]:
    """The content of `report.json`: what was written ({split: images}), and skipped and why."""
    kinds = collections.Counter(entry.kind for entry in skipped)
    return {
        "status": "stopped: too many images were skipped" if stopped else "done",
        "written": dict(written),
        "skipped": len(skipped),
        "kinds": dict(sorted(kinds.items())),
        "notes": list(notes),
        "images_skipped": [
            {"name": entry.name, "kind": entry.kind, "reason": entry.reason} for entry in skipped
        ],
    }


def verify(directory: str | Path) -> dict[str, Any]:
    """Compares a data set with its manifest, which it returns.

    Raises InputError naming the files (up to ten) that are missing, changed or not in the
    manifest, or when there is no manifest.
    """
    directory = Path(directory)
    if not (directory / NAME).is_file():
        raise InputError(f"{directory}: has no {NAME}, so it cannot be verified")
    content = read_json(directory / NAME)
    try:
        expected = {name: (e["bytes"], e["sha256"]) for name, e in content["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{directory / NAME}: is not a manifest of this command") from error
    found = {path.name: path.stat().st_size for path in directory.iterdir()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not in it" for name in sorted(found.keys() - expected.keys() - {NAME})]
    present = sorted(expected.keys() & found.keys())
    total = sum(found[name] for name in present)
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, desc="verify", unit="B", unit_scale=True) as bar,
    ):
        sums = pool.map(lambda name: file_sha256(directory / name), present)
        for name, sha256 in zip(present, sums, strict=True):
            if (found[name], sha256) != expected[name]:
                problems.append(f"{name} has changed")
            bar.update(found[name])
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(f"{directory}: differs from its {NAME}: {', '.join(problems[:10])}{more}")
    return content
