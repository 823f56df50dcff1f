"""What libraries say about damaged files by themselves, kept off stderr: our one line says it."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from logging import LogRecord, getLogger

from absl import logging

NEVER_RETRIEVED = "exception was never retrieved"
CLOSED_LOOP = "Event loop is closed"
# Of Orbax, where another of its reads failed before this one began.
NEVER_AWAITED = r"coroutine 'Store\._get_array_metadatas' was never awaited"


@contextlib.contextmanager
def without_library_messages() -> Iterator[None]:
    """Orbax's and TFDS's log is silent within the block.

    They log what they then raise. TensorStore ends reads of a damaged file after Orbax closed their
    event loop, with a traceback for each, and asyncio reports those nobody waited for, sooner or
    later: these are dropped from now on. So are warnings of Orbax's reads that never began.
    """
    warnings.filterwarnings("ignore", NEVER_AWAITED, RuntimeWarning)
    _drop_closed_loops()
    getLogger("asyncio").addFilter(_was_waited_for)
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _was_waited_for(record: LogRecord) -> bool:
    return NEVER_RETRIEVED not in record.getMessage()


def _drop_closed_loops() -> None:
    show = sys.unraisablehook
    if getattr(show, "drops_closed_loops", False):
        return

    def show_others(unraisable) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and CLOSED_LOOP in str(error)):
            show(unraisable)

    show_others.drops_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = show_others
