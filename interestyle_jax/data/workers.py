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

from interestyle_jax.errors import InputError, MachineError

_POLL_SECONDS = 0.2
# The counter and the stop sign of a worker process, shared with the process that started it.
_shared: dict[str, Any] = {}


UNGUARDED = (
    "no worker process could start: they import the script that starts them, so put what it does "
    'under `if __name__ == "__main__":`, or ask for 0 workers'
)


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

    The function calls `each()` for every image; the bar shows `done` plus these calls out of
    `total`. `workers` processes run them (0: this one). They are spawned, not forked, because the
    caller may hold JAX or Grain threads, and they end with this process, even if it is killed.
    When a task raises, or the caller stops iterating, the others end at their next image.

    Raises what a task raises, MachineError when a worker process dies, and InputError when none
    can start, because the caller's script has no main guard.
    """
    end_unguarded_worker()
    tasks = list(tasks)
    with tqdm(total=total, initial=done, desc=label, unit="image", smoothing=0.05) as bar:
        if workers == 0 or not tasks:
            for task in tasks:
                yield function(task, bar.update)
            return
        context = multiprocessing.get_context("spawn")
        counter, stop = context.Value("q", 0), context.Value("b", 0)
        started = context.Value("b", 0)
        with concurrent.futures.ProcessPoolExecutor(
            min(workers, len(tasks)), context, _start_worker, (counter, stop, started)
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
                if not started.value:
                    raise InputError(UNGUARDED) from error
                raise MachineError(
                    "a worker process died (is there memory for so many --workers?)"
                ) from error
            finally:
                stop.value = 1
                pool.shutdown(wait=True, cancel_futures=True)


def end_unguarded_worker() -> None:
    """Ends this process where it is a worker that only imports its parent's script so far.

    Without a main guard the script's work would start again in every worker. The parent says so.
    """
    # What multiprocessing itself looks at, to end with a traceback for each worker.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)


def _start_worker(counter, stop, started) -> None:
    started.value = 1
    _shared.update(counter=counter, stop=stop)
    # Ctrl-C reaches every process of the terminal; the starting one stops its workers.
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
