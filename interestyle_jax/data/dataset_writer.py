"""Writes TFDS data sets (array_record, no TensorFlow): whole or not at all, resumed after a kill.

Finished shards lie in `.OUT.building` beside `OUT` until all are there; what is in `OUT` does not
depend on interruptions or on the number of processes.
"""

import collections
import contextlib
import fcntl
import functools
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

from interestyle_jax.data import manifest
from interestyle_jax.data.build import Build, Source
from interestyle_jax.data.data_format import FORMAT
from interestyle_jax.data.shards import Shard, ShardRecord, read_record, write_shard
from interestyle_jax.data.workers import end_unguarded_worker, run_tasks
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.json_file import read_json, write_json
from interestyle_jax.one_line import one_line

# In the building folder: {file of the data set: name of its shard}.
MOVES = "moves.json"
_LISTED = 10
# Reading continues up to so many unusable images, for the report, whatever share is allowed.
_TOLERATED = 100


def write_dataset(
    source: Source, out: Path, *, workers: int, force: bool = False, max_skipped: float = 0.0
) -> Path:
    """Writes the data set to the directory `out` and returns it.

    `out` is whole or absent. Beside the TFDS files it holds `manifest.json` (checksums) and
    `report.json` (what was skipped and why). What an interrupted run finished is used, where it
    is of the same items and options. `max_skipped` is the share of images that may be skipped.

    Raises InputError when `out` exists and `force` is not set, when more than `max_skipped` is
    skipped (naming the first ten; `report.json` in the building folder has all), when no
    example remains in a split, when another process builds the same, or when `out` may not be
    written; MachineError when the disk is full or fails.
    """
    end_unguarded_worker()
    out = Path(out)
    check_free(out, force)
    building = out.with_name(f".{out.name}.building")
    features = tfds.features.FeaturesDict(dict(source.features))
    build = Build(source)
    try:
        building.mkdir(parents=True, exist_ok=True)
        with _locked(building):
            _clear(build, building)
            _write_shards(build, features, building, workers, max_skipped)
            _check_skipped(build, building, max_skipped)
            finished = _gather(build, building)
            _describe(build, features, finished)
            _put(finished, out)
            shutil.rmtree(building)
    except OSError as error:
        raise file_error(error, f"{out}: cannot be written") from error
    _summarise(build)
    return out


def check_free(out: Path, force: bool) -> None:
    """Raises InputError when `out` exists and is not to be replaced, or is no data set."""
    if not out.exists():
        return
    if not force:
        raise InputError(f"{out}: exists already; choose another --out or pass --force")
    if not (out / "dataset_info.json").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: is not a data set, so --force does not replace it")


def _write_shards(
    build: Build,
    features: tfds.features.FeaturesDict,
    building: Path,
    workers: int,
    max_skipped: float,
) -> None:
    """Writes the shards that are not there yet, until too much is skipped."""
    found = {shard.name: read_record(building, shard) for shard in build.shards}
    build.records.update((name, record) for name, record in found.items() if record is not None)
    _report_resume(build, building)
    missing = [shard for shard in build.shards if shard.name not in build.records]
    total = sum(len(shard.items) for shard in build.shards)
    done = total - sum(len(shard.items) for shard in missing)
    allowed = max(max_skipped * build.total, _TOLERATED)
    num_skipped = len(build.skipped())
    if num_skipped > allowed:
        return
    task = functools.partial(_write, building, features, build.source.make)
    results = run_tasks(
        task, missing, workers=workers, total=total, done=done, label=build.source.name
    )
    with contextlib.closing(results):
        for name, record in results:
            build.records[name] = record
            num_skipped += len(record.skipped)
            if num_skipped > allowed:
                break


def _write(building: Path, features, make, shard: Shard, each) -> tuple[str, ShardRecord]:
    return shard.name, write_shard(building, shard, features, make, each)


def _report_resume(build: Build, building: Path) -> None:
    there = sum((building / f"{shard.name}.json").exists() for shard in build.shards)
    if there:
        text = f"resuming: {len(build.records)} of {len(build.shards)} shards are there"
        if there > len(build.records):
            text += f", {there - len(build.records)} of other files or options are rebuilt"
        print(f"{build.source.name}: {text}", file=sys.stderr)


def _clear(build: Build, building: Path) -> None:
    """Takes back what a run had gathered that was killed before its end; removes leftovers."""
    finished = building / "finished"
    if (building / MOVES).exists():
        for file, name in read_json(building / MOVES).items():
            if (finished / file).exists():
                (finished / file).rename(building / name)
    shutil.rmtree(finished, ignore_errors=True)
    names = {shard.name for shard in build.shards}
    known = {"lock"} | names | {f"{name}.json" for name in names}
    for path in building.iterdir():
        if path.name not in known:
            path.unlink()


def _check_skipped(build: Build, building: Path, max_skipped: float) -> None:
    skipped, written = build.skipped(), build.written()
    if build.complete and len(skipped) <= max_skipped * build.total:
        for split, count in written.items():
            if count == 0:
                raise InputError(f"split {split}: no image is left in it")
        return
    path = building / "report.json"
    stopped = not build.complete
    content = manifest.report(written, skipped, notes=build.source.notes, stopped=stopped)
    write_json(path, content)
    named = "; ".join(entry.reason for entry in skipped[:_LISTED])
    more = f"; and {len(skipped) - _LISTED} more, see {path}" if len(skipped) > _LISTED else ""
    raise InputError(
        f"{len(skipped)} of {build.total} images cannot be used{' so far' if stopped else ''}, "
        f"more than the {100 * max_skipped:g} % that --max-skipped allows: {named}{more}"
    )


def _gather(build: Build, building: Path) -> Path:
    """Moves the shards to a folder of their own, under the names that TFDS expects."""
    finished = building / "finished"
    finished.mkdir()
    files = build.files()
    moves = {file: shard.name for own in files.values() for file, shard in own.items()}
    # For the next run, should this one be killed from here on.
    write_json(building / MOVES, moves)
    for file, name in moves.items():
        (building / name).rename(finished / file)
    return finished


def _describe(build: Build, features: tfds.features.FeaturesDict, finished: Path) -> None:
    """Writes the metadata of TFDS, the report and the manifest beside the shards."""
    source = build.source
    template = naming.ShardedFileTemplate(
        data_dir=finished,
        template=naming.DEFAULT_FILENAME_TEMPLATE,
        dataset_name=source.name,
        filetype_suffix="array_record",
    )
    sums = {
        split: {file: build.records[shard.name] for file, shard in own.items()}
        for split, own in build.files().items()
    }
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[record.examples for record in own.values()],
            num_bytes=sum(record.bytes for record in own.values()),
            filename_template=template.replace(split=split),
        )
        for split, own in sums.items()
    ]
    # TFDS prints a line for notebooks.
    with contextlib.redirect_stdout(io.StringIO()):
        tfds.folder_dataset.write_metadata(
            data_dir=str(finished),
            features=features,
            split_infos=infos,
            version=f"{FORMAT}.0.0",
            check_data=False,
            description=source.description,
            homepage=source.homepage or None,
            license=source.licence or None,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(**source.options),
        )
    content = manifest.report(build.written(), build.skipped(), notes=source.notes, stopped=False)
    write_json(finished / "report.json", content)
    flat = {file: record for own in sums.values() for file, record in own.items()}
    content = manifest.manifest(finished, flat, options=source.options, sources=source.sources)
    write_json(finished / manifest.NAME, content)


def _put(finished: Path, out: Path) -> None:
    """Moves the finished folder to `out`, whose old content goes only when that is done."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    try:
        finished.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _locked(building: Path) -> Iterator[None]:
    with open(building / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{building}: another process is building there") from error
        try:
            yield
        finally:
            # An empty folder is no finished work.
            if {path.name for path in building.glob("*")} == {"lock"}:
                shutil.rmtree(building)


def _summarise(build: Build) -> None:
    lines, skipped = list(build.source.notes), build.skipped()
    if skipped:
        kinds = collections.Counter(entry.kind for entry in skipped)
        named = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines.append(f"skipped {len(skipped)} of {build.total} images: {named} (see report.json)")
    for line in lines:
        print(f"{build.source.name}: {one_line(line)}", file=sys.stderr)
