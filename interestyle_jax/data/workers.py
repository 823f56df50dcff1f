"""Tasks on worker processes with one progress bar, ended as soon as one of them fails."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

from tqdm import tqdm

from interestyle_jax.errors import MachineError

_POLL_SECONDS = 0.2
# The counter and the stop sign of a worker process, shared with the process that started it.
_shared: dict[str, Any] = {}


class _Stopped(Exception):
    """The other side asked for the end."""


def run_tasks(
    function: Callable[[Any, Callable[[], None]], Any],
    tasks: Iterable[Any],
    *,
    workers: int,
    total: int,
    done: int,
    label: str,
) -> Generator[Any, None, None]:
    """Yields function(task, each) for each task, in the order in which they end.

    The function calls `each()` for every picture; the bar shows `done` plus these calls out of
    `total`. `workers` processes run them (0: this one). They are spawned, not forked, because the
    caller may hold JAX or Grain threads, and they end with this process, even if it is killed.
    When a task raises, or the caller stops iterating, the others end at their next picture.

    Raises what a task raises, and MachineError when a worker process dies.
    """
    tasks = list(tasks)
    with tqdm(total=total, initial=done, desc=label, unit="picture", smoothing=0.05) as bar:
        if workers == 0 or not tasks:
            for task in tasks:
                yield function(task, bar.update)
            return
        context = multiprocessing.get_context("spawn")
        counter, stop = context.Value("q", 0), context.Value("b", 0)
        with concurrent.futures.ProcessPoolExecutor(
            min(workers, len(tasks)), context, _start_worker, (counter, stop)
        ) as pool:
            pending = {pool.submit(_run, function, task) for task in tasks}
            try:
                while pending:
                    ended, pending = concurrent.futures.wait(
                        pending, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
                    )
                    bar.update(done + counter.value - bar.n)
                    for future in ended:
                        yield future.result()
            except concurrent.futures.process.BrokenProcessPool as error:
                raise MachineError(
                    "a worker process died (is there memory for so many --workers?)"
                ) from error
            finally:
                stop.value = 1
                pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(counter, stop) -> None:
    _shared.update(counter=counter, stop=stop)
    # Ctrl-C reaches every process of the terminal; the starting one tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(function: Callable[[Any, Callable[[], None]], Any], task: Any) -> Any:
    with contextlib.suppress(_Stopped):
        return function(task, _each)


def _each() -> None:
    counter = _shared["counter"]
    with counter.get_lock():
        counter.value += 1
    if _shared["stop"].value:
        raise _Stopped
