"""Loading, computing and saving at the same time, with a bounded number of images in between."""

import collections
import concurrent.futures
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from interestyle_jax.errors import InputError, is_machine_failure
from interestyle_jax.jobs.job import ImageJob, Item, Result, Source
from interestyle_jax.whole_files import write_whole

MOST_WORKERS = 16
# Batches that are loaded ahead, on the device, and being saved: more would only take memory.
AHEAD, ON_DEVICE, SAVING = 2, 2, 2


class Outcome(NamedTuple):
    """What became of an image.

    Attributes:
      item: the image.
      state: `Source.state` before it was read.
      result: what it left, its files written; None where it was skipped.
      reason: why it was skipped.
    """

    item: Item
    state: dict[str, Any]
    result: Result | None
    reason: str


class _Loaded(NamedTuple):
    item: Item
    state: dict[str, Any]
    content: Any
    reason: str


def default_workers() -> int:
    """A thread a core that this process may use, at most MOST_WORKERS."""
    is_known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if is_known else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def run_batches(
    job: ImageJob,
    source: Source,
    batches: Iterable[Sequence[Item | None]],
    out: Path,
    *,
    workers: int,
) -> Iterator[tuple[list[Outcome], float]]:
    """Yields the outcomes of every batch, in order, and the time at which the device was done.

    Images are loaded, inspected and saved by `workers` threads. The device works on batch k + 1
    before the results of batch k are fetched.

    Raises what the job raises; InputError of one image skips it, as does a file that the system
    will not give.
    """
    # Jobs of one image a batch keep all threads busy too.
    more = math.ceil(workers / job.batch_size)
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="job")

    def submit(work, rows, *others):
        """A task for each row that is not None."""
        pairs = zip(rows, *others, strict=True)
        return [None if row[0] is None else pool.submit(work, *row) for row in pairs]

    def start(tasks):
        loaded = _results(tasks)
        rows = [None if row is None or row.reason else row.content for row in loaded]
        has_work = any(row is not None for row in rows)
        return loaded, job.compute(rows) if has_work else None

    def fetch(batch):
        loaded, computed = batch
        return loaded, _rows(jax.device_get(computed), len(loaded)), time.perf_counter()

    def inspect(batch):
        loaded, rows, _ = batch
        pairs = zip(loaded, rows, strict=True)
        used = [None if row is None or row.reason else own for row, own in pairs]
        return batch, submit(job.inspect, used)

    def compare(batch):
        fetched, tasks = batch
        inspected = _results(tasks)
        has_work = any(row is not None for row in inspected)
        return fetched, job.compare(inspected) if has_work else {}

    def join(batch):
        (loaded, rows, done), compared = batch
        more = _rows(jax.device_get(compared), len(rows))
        return loaded, [row and row | own for row, own in zip(rows, more, strict=True)], done

    def save(batch):
        loaded, rows, done = batch
        return submit(lambda row, own: _save(job, out, row, own), loaded, rows), done

    def is_saved(batch):
        return all(task is None or task.done() for task in batch[0])

    loading = (submit(lambda item: _load(job, source, item), batch) for batch in batches)
    computed = map(start, _ahead(loading, AHEAD + more))
    fetched = map(fetch, _ahead(computed, ON_DEVICE - 1))
    if job.compares:
        # Batches are inspected, and compared, while the device has the next one.
        compared = map(compare, _ahead(map(inspect, fetched), 1))
        fetched = map(join, _ahead(compared, 1))
    try:
        for tasks, done in _ahead(map(save, fetched), SAVING + more, is_ready=is_saved):
            yield [outcome for outcome in _results(tasks) if outcome is not None], done
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    batches: Iterable[Any], count: int, *, is_ready: Callable[[Any], bool] = lambda batch: False
) -> Iterator[Any]:
    """The batches, of each `count` more are begun before it is waited for, unless it is ready."""
    begun: collections.deque[Any] = collections.deque()
    for batch in batches:
        begun.append(batch)
        while begun and (len(begun) > count or is_ready(begun[0])):
            yield begun.popleft()
    yield from begun


def _results(tasks: Iterable[concurrent.futures.Future | None]) -> list[Any]:
    return [None if task is None else task.result() for task in tasks]


def _rows(computed: Any, count: int) -> list[Any]:
    """Each row of a tree of arrays."""
    return [jax.tree.map(lambda a, i=i: a[i], computed) for i in range(count)]


def _load(job: ImageJob, source: Source, item: Item) -> _Loaded:
    state: dict[str, Any] = {"file": str(item.source)}
    try:
        state = source.state(item)
        return _Loaded(item, state, job.load(item), "")
    except (InputError, OSError) as error:
        if is_machine_failure(error):
            raise
        return _Loaded(item, state, None, str(error))


def _save(job: ImageJob, out: Path, loaded: _Loaded, row: Any) -> Outcome:
    item, state, content, reason = loaded
    result = None
    if not reason:
        try:
            result = job.save(item, content, row)
        except (InputError, OSError) as error:
            if is_machine_failure(error):
                raise
            reason = str(error)
    if result is None:
        # Of a run before, when the image could be used.
        for name in job.outputs(item.name):
            (out / name).unlink(missing_ok=True)
        return Outcome(item, state, None, reason)
    for name, content in result.files.items():
        if "/" in name:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
        # Not synchronised: a file that a power failure cut has another size than its line says.
        write_whole(out / name, content, sync=False)
    return Outcome(item, state, result, "")
