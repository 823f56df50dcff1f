"""Loading, computing and saving at the same time, with a bounded number of images in between."""

import collections
import concurrent.futures
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
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
    batches = iter(batches)
    # Jobs of one image a batch keep all threads busy too.
    more = math.ceil(workers / job.batch_size)
    loading, computing, inspecting, comparing, saving = (collections.deque() for _ in range(5))
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="job")

    def load_ahead():
        while len(loading) < AHEAD + more:
            batch = next(batches, None)
            if batch is None:
                return
            loading.append(
                [None if item is None else pool.submit(_load, job, source, item) for item in batch]
            )

    def start():
        loaded = [None if row is None else row.result() for row in loading.popleft()]
        load_ahead()
        rows = [None if row is None or row.reason else row.content for row in loaded]
        has_work = any(row is not None for row in rows)
        computing.append((loaded, job.compute(rows) if has_work else None))

    def fetch():
        loaded, computed = computing.popleft()
        rows = _rows(jax.device_get(computed), len(loaded))
        done = time.perf_counter()
        if not job.compares or computed is None:
            return save(loaded, rows, done)
        tasks = [
            None if row is None or row.reason else pool.submit(job.inspect, own)
            for row, own in zip(loaded, rows, strict=True)
        ]
        inspecting.append((loaded, rows, done, tasks))

    def compare():
        *batch, tasks = inspecting.popleft()
        inspected = [None if task is None else task.result() for task in tasks]
        comparing.append((*batch, job.compare(inspected)))

    def fetch_compared():
        loaded, rows, done, compared = comparing.popleft()
        more = _rows(jax.device_get(compared), len(rows))
        save(loaded, [row | own for row, own in zip(rows, more, strict=True)], done)

    def save(loaded, rows, done):
        tasks = [
            pool.submit(_save, job, out, row, own)
            for row, own in zip(loaded, rows, strict=True)
            if row is not None
        ]
        saving.append((tasks, done))

    def is_saved(batch):
        return all(task.done() for task in batch[0])

    def saved():
        tasks, done = saving.popleft()
        return [task.result() for task in tasks], done

    try:
        load_ahead()
        while loading or computing or inspecting or comparing:
            while loading and len(computing) < ON_DEVICE:
                start()
            if computing:
                fetch()
            if comparing:
                fetch_compared()
            # The last batch is still looked at, while the device has another one.
            if len(inspecting) > 1 or (inspecting and not computing):
                compare()
            while saving and (len(saving) > SAVING + more or is_saved(saving[0])):
                yield saved()
        while saving:
            yield saved()
    finally:
        pool.shutdown(cancel_futures=True)


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
