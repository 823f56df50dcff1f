"""Runs an image job: the work, the skip budget, the latents, the report."""

import ctypes
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from interestyle_jax.errors import InputError
from interestyle_jax.jobs import latents as latent_files
from interestyle_jax.jobs.folder_state import FolderState, check_results
from interestyle_jax.jobs.job import Finished, ImageJob, Source
from interestyle_jax.jobs.pipeline import Outcome, default_workers, run_batches
from interestyle_jax.jobs.progress import Progress
from interestyle_jax.jobs.shard import WHOLE, Shard
from interestyle_jax.json_file import parse_json, plain, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.one_line import one_line
from interestyle_jax.whole_files import sync_folder

# Finished images are noted this often: what a kill may cost.
COMMIT_SECONDS = 1.0
# Memory that is free is given back to the system this often.
TRIM_SECONDS = 10.0
LISTED = 3
MOST_TOLD = 10


def run_job(
    job: ImageJob,
    source: Source,
    out: Path,
    *,
    shard: Shard = WHOLE,
    max_skipped: float | None = None,
    workers: int | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Does this process' part of a job; the process that ends the last part writes the report.

    The same call continues after a stop: images that `progress.jsonl` knows, and whose source and
    files are as it says, are not done again. Results are the same as without the stop.

    Args:
      job: what to do.
      source: the images; all processes see the same.
      out: the output folder, which all processes share.
      shard, max_skipped, workers, command: see `RunOptions`.

    Returns:
      The report, with "status" "done"; "part done" where other processes have not ended theirs.

    Raises:
      InputError: too many images skipped, results that would overwrite something, an `out` of
        another command or other options, or of a running process, or what the job raises.
      MachineError: the disk is full or fails. What is finished stays; the same call continues.
    """
    if max_skipped is None:
        max_skipped = job.max_skipped
    if workers is None:
        workers = min(default_workers(), job.most_workers)
    if workers < 0:
        raise InputError(f"--workers: {workers} is negative, expected 0 or more")
    if not 0 <= max_skipped <= 1:
        raise InputError(f"--max-skipped: {max_skipped:g}, expected a share from 0 to 1")
    started = time.perf_counter()
    check_results(job, source, out)
    with Progress(out, command=job.command, options=job.options, shard=shard) as progress:
        run = _Run(job, source, progress, max_skipped, max(1, workers))
        if progress.is_new:
            progress.refuse_existing(job.own_files)
        waiting = run.state.waiting(shard)
        seconds = run.work(waiting, len(run.state.part(shard)))
        with progress.alone():
            return run.finish(seconds, started, command)


class _Run:
    def __init__(self, job, source, progress, max_skipped, workers):
        self.job: ImageJob = job
        self.source: Source = source
        self.progress: Progress = progress
        self.out: Path = progress.out
        self.max_skipped: float = max_skipped
        self.workers: int = workers
        self.state = FolderState(job, source, progress)
        self.num_new = 0

    def work(self, waiting: Sequence[int], total: int) -> float | None:
        """Does the images; returns seconds an image after the first batch."""
        if not waiting:
            return None
        writer = latent_files.LatentWriter(self.out) if self.job.latents_shape else None
        records: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        num_done, first = 0, None

        def commit():
            if writer is not None:
                writer.sync()
            sync_folder(self.out)
            self.progress.add(records)
            records.clear()

        last = trimmed = time.monotonic()
        done = total - len(waiting)
        try:
            with tqdm(
                total=total, initial=done, desc=self.job.command, unit="image", smoothing=0.05
            ) as bar:
                batches = self.state.batches(waiting)
                for batch, at in run_batches(
                    self.job, self.source, batches, self.out, workers=self.workers
                ):
                    num_done += len(batch)
                    first = first or (num_done, at)
                    for outcome in batch:
                        record = self._record(outcome, writer)
                        if outcome.result is None:
                            skipped.append(record)
                            _tell(outcome.reason, len(skipped))
                            if self._is_known(record):
                                continue
                        records.append(record)
                    bar.update(len(batch))
                    self.num_new += sum(outcome.result is not None for outcome in batch)
                    # The first few show what is wrong better than one does.
                    if len(skipped) >= MOST_TOLD:
                        self._check_skipped(skipped, total)
                    # A run that only skips leaves nothing, however slow it is.
                    if self.num_new and time.monotonic() - last >= COMMIT_SECONDS:
                        commit()
                        last = time.monotonic()
                    if time.monotonic() - trimmed >= TRIM_SECONDS:
                        _trim_memory()
                        trimmed = time.monotonic()
        finally:
            # Also after an error: what is finished stays.
            if records and any("skipped" not in record for record in records):
                commit()
            if writer is not None:
                writer.close()
        self._check_skipped(skipped, total)
        if records:
            commit()
        assert first is not None
        rest = num_done - first[0]
        return (at - first[1]) / rest if rest else None

    def _is_known(self, record: Mapping[str, Any]) -> bool:
        """Whether the image's last line says the same."""
        return record.items() <= (self.progress.find(record["name"]) or {}).items()

    def _record(self, outcome: Outcome, writer) -> dict[str, Any]:
        """A line of progress."""
        item, state, result, reason = outcome
        if result is None:
            return {"name": item.name, **state, "skipped": reason}
        latents = None
        if result.latents is not None:
            latents = [writer.name, writer.add(result.latents)]
        return {
            "name": item.name,
            **state,
            "outputs": {name: len(content) for name, content in result.files.items()},
            "latents": latents,
            **result.facts,
        }

    def _check_skipped(self, skipped: Sequence[Mapping[str, Any]], total: int) -> None:
        if len(skipped) <= self.max_skipped * total:
            return
        reasons = "; ".join(record["skipped"] for record in skipped[:LISTED])
        if total == 1:
            raise InputError(reasons)
        more = f" and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        raise InputError(
            f"{len(skipped)} of {total} images cannot be used, more than "
            f"--max-skipped={self.max_skipped:g} allows: {reasons}{more}"
        )

    def finish(self, seconds: float | None, started: float, command: Sequence[str]) -> dict:
        """Joins and reports where all parts are done."""
        self.state.refresh()
        done, skipped, num_left = [], [], 0
        for index in range(len(self.source)):
            record = self.state.find(self.source[index])
            if record is None:
                num_left += 1
            elif "skipped" in record:
                skipped.append(record)
            else:
                done.append(index)
        if num_left:
            counts = {"num_images": self.num_new, "num_new": self.num_new, "num_left": num_left}
            return {"status": "part done", **counts}
        self._check_skipped(skipped, len(self.source))
        if not done:
            raise InputError(f"no image can be used: {skipped[0]['skipped']}")
        before = self._report_before(done, len(skipped))
        if before is not None:
            return before | {"num_new": self.num_new}
        self.state.remove_unfinished({*self.job.own_files, self.job.report_file})
        joined = None
        if self.job.latents_shape:
            names = [self.source[index].name for index in done]
            joined = latent_files.write_latents(
                self.out,
                names,
                self.state.read_latents,
                self.job.latents_shape,
                generator=self.job.generator,
            )
        report = self.job.finish(
            self.out,
            Finished(
                records=_Records(self, done),
                skipped=skipped,
                latents=joined,
                num_new=self.num_new,
                seconds_per_image=seconds,
            ),
        )
        report = {
            "status": "done",
            "num_images": len(done),
            "num_new": self.num_new,
            "num_skipped": len(skipped),
            "skipped": {r.get("file", r["name"]): r["skipped"] for r in skipped},
            **report,
            "report_options": plain(dict(self.job.report_options)),
            "seconds": round(time.perf_counter() - started, 3),
            "versions": library_versions(),
            "command": list(command),
        }
        write_json(self.out / self.job.report_file, report)
        sync_folder(self.out)
        return report

    def _report_before(self, done: Sequence[int], num_skipped: int) -> dict[str, Any] | None:
        """The report of an earlier run or another process that knew all that is done now."""
        if self.job.latents_shape:
            names = [self.source[index].name for index in done]
            if self.state.joined is None or self.state.joined.names != names:
                return None
        try:
            is_newer = (
                self.out / self.job.report_file
            ).stat().st_mtime_ns >= self.progress.changed()
            # Latents may lie in several files.
            own = set(self.job.own_files) - {latent_files.JOINED}
            there = all((self.out / name).exists() for name in own)
            if not (is_newer and there):
                return None
            report = parse_json((self.out / self.job.report_file).read_bytes())
            if report["report_options"] != plain(dict(self.job.report_options)):
                return None
            counts = (report["num_images"], report["num_skipped"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return report if counts == (len(done), num_skipped) else None


class _Records:
    """Lines of images, read again at every pass."""

    def __init__(self, run: _Run, indices: Sequence[int]):
        self._run, self._indices = run, indices

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in self._indices:
            yield self._run.progress.find(self._run.source[index].name)


def _trim_memory() -> None:
    """Gives memory that is free back: glibc keeps some for every thread, more and more of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _tell(reason: str, count: int) -> None:
    """Says on stderr that an image is skipped, of the first MOST_TOLD."""
    if count <= MOST_TOLD:
        tqdm.write(f"interestyle: skipped: {one_line(reason)}", file=sys.stderr)
    elif count == MOST_TOLD + 1:
        tqdm.write("interestyle: more are skipped, as the report says", file=sys.stderr)
