"""The command `interestyle masks`: interest masks of picture files, by a mask provider."""

import collections
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.commands.mask_progress import Progress, file_state
from interestyle_jax.data.layouts import list_tree
from interestyle_jax.data.pictures import SUFFIXES, list_pictures, read_picture, save_picture
from interestyle_jax.data.workers import run_tasks
from interestyle_jax.errors import InputError, is_machine_failure
from interestyle_jax.interest.overlay import COLUMNS, ROWS, Tile, sheets
from interestyle_jax.interest.providers import MaskProvider, make_provider
from interestyle_jax.library_versions import library_versions

# These run a network on all cores by themselves: workers would only cost memory.
WHOLE_MACHINE = ("segformer", "detr", "graphonomy")
CHUNK = 16
LISTED = 3


@dataclasses.dataclass(frozen=True)
class _Task:
    """Some pictures, and how their masks are made; goes to the worker processes."""

    provider: str
    options: Mapping[str, Any]
    files: tuple[Path, ...]
    out: Path


def write_masks(
    images: str | Path | Sequence[Path],
    out: str | Path,
    *,
    provider: str,
    options: Mapping[str, Any] | None = None,
    tiny: float = 0.01,
    max_skipped: float = 0.01,
    num_sheets: int = 10,
    workers: int | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the masks of pictures; a second call goes on where the first was stopped.

    Into `out`, for every picture NAME: `labels/NAME.png` (indices of the provider's labels),
    `interest/NAME.png` and, where the provider knows faces, `face/NAME.png` (0 and 255, not
    dilated). Then `overlays/sheet_000.png` ... and `report.json`. `pictures.jsonl` has a line for
    every finished picture: they are not done again, unless the picture's file has changed.

    Args:
      images: a folder of pictures (those below it where it holds none itself), or their paths.
      out: the folder to write; one provider with one set of options a folder.
      provider: name of a provider.
      options: the provider's options, see `make_provider`.
      tiny: share of the picture below which an interest region counts as tiny.
      max_skipped: share of the pictures that may go without masks, as unreadable or unpaired.
      num_sheets: sheets of 5 x 4 pictures at most, taken evenly from all; 0 for none.
      workers: processes; None: one a core, none where the provider's network takes all cores.
      command: the command line, for the report.

    Returns:
      The report.

    Raises:
      InputError: no pictures, two of one name, a bad option, too many pictures without masks, or
        an `out` that holds other things under these names.
    """
    started, out = time.perf_counter(), Path(out)
    for name, share in (("tiny", tiny), ("max-skipped", max_skipped)):
        if not 0 <= share <= 1:
            raise InputError(f"--{name}: {share}, expected a share from 0 to 1")
    options = {k: v for k, v in (options or {}).items() if v is not None}
    # Made here first, so that what it lacks is told before any worker starts.
    made = make_provider(provider, **options)
    files = _picture_files(images, out)
    with Progress(out, provider, options, made.labels) as progress:
        waiting = progress.waiting(files)
        workers = _workers(workers, provider, len(waiting))
        # What a kill may cost: seconds a picture for some, milliseconds for others.
        chunk = 1 if provider in WHOLE_MACHINE else CHUNK
        tasks = [
            _Task(provider, options, tuple(waiting[i : i + chunk]), out.absolute())
            for i in range(0, len(waiting), chunk)
        ]
        if workers == 0:
            _providers[_identity(provider, options)] = made
        skipped: list[dict[str, str]] = []
        try:
            for records in run_tasks(
                _run,
                tasks,
                workers=workers,
                total=len(files),
                done=len(files) - len(waiting),
                label="masks",
            ):
                skipped += [record for record in records if "skipped" in record]
                progress.add([record for record in records if "skipped" not in record])
                _check_skipped(skipped, len(files), max_skipped)
        finally:
            _providers.clear()
        finished = progress.records(files)
    report = _report(made, finished, skipped, tiny)
    report["sheets"] = _write_sheets(out, finished, num_sheets)
    report |= {
        "options": {key: _plain(value) for key, value in options.items()},
        "new_pictures": len(waiting) - len(skipped),
        "seconds": round(time.perf_counter() - started, 3),
        "versions": library_versions(),
        "command": list(command),
    }
    _write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    return report


# Provider by identity, one in each worker process.
_providers: dict[str, MaskProvider] = {}


def _identity(provider: str, options: Mapping[str, Any]) -> str:
    return json.dumps([provider, {k: _plain(v) for k, v in sorted(options.items())}])


def _run(task: _Task, each: Callable[[], None]) -> list[dict[str, Any]]:
    """Writes the masks of a task's pictures; returns a record a picture."""
    identity = _identity(task.provider, task.options)
    if identity not in _providers:
        _providers[identity] = make_provider(task.provider, **task.options)
    records = []
    for file in task.files:
        try:
            records.append(_write_one(_providers[identity], file, task.out))
        except _Unusable as error:
            records.append({"name": file.stem, "file": str(file), "skipped": str(error)})
        each()
    return records


class _Unusable(Exception):
    """A picture that goes without masks, and why."""


def _write_one(provider: MaskProvider, file: Path, out: Path) -> dict[str, Any]:
    # What fails here is the picture's fault; what fails in writing is not.
    try:
        state = file_state(file)
        picture = read_picture(file)
        masks = provider(picture, name=file.stem)
    except (InputError, OSError) as error:
        if is_machine_failure(error):
            raise
        raise _Unusable(str(error)) from error
    parts = {"labels": masks.labels[..., None], "interest": masks.interest, "face": masks.face}
    for part, values in parts.items():
        if values is not None:
            save_picture(out / part / f"{file.stem}.png", values)
    counts = np.bincount(masks.labels.ravel())
    return {
        "name": file.stem,
        **state,
        "interest": float((masks.interest > 0).mean()),
        "face": None if masks.face is None else float((masks.face > 0).mean()),
        "labels": {int(i): float(n / masks.labels.size) for i, n in enumerate(counts) if n},
    }


def _check_skipped(skipped: Sequence[Mapping[str, str]], total: int, share: float) -> None:
    if len(skipped) <= share * total:
        return
    named = "; ".join(f"{record['file']}: {record['skipped']}" for record in skipped[:LISTED])
    raise InputError(
        f"{len(skipped)} of {total} pictures got no masks, more than --max-skipped={share:g} "
        f"allows: {named}"
        + (f" and {len(skipped) - LISTED} more" if len(skipped) > LISTED else "")
        + "; finished masks stay, the same command goes on"
    )


def _picture_files(images: str | Path | Sequence[Path], out: Path) -> list[Path]:
    if isinstance(images, str | Path):
        images = Path(images)
        if images.is_dir() and not any(p.suffix.lower() in SUFFIXES for p in images.iterdir()):
            below = out.absolute()
            return [p for p in list_tree(images) if below not in p.absolute().parents]
        return list_pictures(images)
    files = sorted(map(Path, images), key=lambda path: (path.stem, str(path)))
    for one, other in zip(files, files[1:], strict=False):
        if one.stem == other.stem:
            raise InputError(f"{other}: has the same name as {one} up to the suffix")
    if not files:
        raise InputError("images: no picture given")
    return files


def _workers(wanted: int | None, provider: str, pictures: int) -> int:
    if wanted is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        # Starting processes takes longer than a few pictures.
        is_small = provider in WHOLE_MACHINE or pictures < 4 * CHUNK
        return 0 if is_small or cores == 1 else cores
    if wanted < 0:
        raise InputError(f"--workers: {wanted} is negative, expected 0 or more")
    return wanted


def _report(
    provider: MaskProvider,
    records: Sequence[Mapping[str, Any]],
    skipped: Sequence[Mapping[str, str]],
    tiny: float,
) -> dict[str, Any]:
    shares = np.array([record["interest"] for record in records])
    empty = [r["name"] for r in records if r["interest"] == 0]
    small = [r["name"] for r in records if 0 < r["interest"] < tiny]
    pixels: collections.Counter[int] = collections.Counter()
    pictures: collections.Counter[int] = collections.Counter()
    for record in records:
        for index, share in record["labels"].items():
            pixels[int(index)] += share
            pictures[int(index)] += 1
    count = max(1, len(records))
    return {
        "status": "done",
        "provider": provider.name,
        "num_pictures": len(records),
        "interest": {
            "mean_share": float(shares.mean()) if len(records) else None,
            "median_share": float(np.median(shares)) if len(records) else None,
            "empty": len(empty) / count,
            "tiny": len(small) / count,
            "tiny_below": tiny,
            "empty_pictures": empty,
            "tiny_pictures": small,
        },
        "labels": {
            provider.labels[index]: {
                "mean_share": round(pixels[index] / count, 6),
                "pictures": pictures[index],
            }
            for index in sorted(pixels)
        },
        "skipped": [{"file": r["file"], "reason": r["skipped"]} for r in skipped],
    }


def _write_sheets(out: Path, records: Sequence[Mapping[str, Any]], num_sheets: int) -> int:
    """Draws pictures taken evenly from all; sheets of an earlier run that are too many go."""
    places = min(len(records), max(0, num_sheets) * COLUMNS * ROWS)
    chosen = [records[i * len(records) // places] for i in range(places)]
    count = 0
    for start in range(0, places, COLUMNS * ROWS):
        tiles = [_tile(out, record) for record in chosen[start : start + COLUMNS * ROWS]]
        (sheet,) = sheets(tiles)
        (out / "overlays").mkdir(exist_ok=True)
        save_picture(out / "overlays" / f"sheet_{count:03d}.png", sheet)
        count += 1
    for path in sorted((out / "overlays").glob("sheet_[0-9][0-9][0-9].png")):
        if int(path.stem.removeprefix("sheet_")) >= count:
            path.unlink()
    return count


def _tile(out: Path, record: Mapping[str, Any]) -> Tile:
    name = f"{record['name']}.png"
    face = read_picture(out / "face" / name)[..., :1] if record["face"] is not None else None
    interest = read_picture(out / "interest" / name)[..., :1]
    caption = f"{record['name']}  {100 * record['interest']:.1f} %"
    return Tile(read_picture(record["file"]), interest, face, caption)


def _plain(value: Any) -> Any:
    """An option as JSON."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
