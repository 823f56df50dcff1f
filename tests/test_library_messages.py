"""One line of error: what libraries log, or print late, about a damaged file is not shown."""

import subprocess
import sys
import warnings
from logging import getLogger

import pytest
from absl import logging

from interestyle_jax.exit_status import DEBUG, run_command
from interestyle_jax.library_messages import without_library_messages

LATE = """
import sys
from interestyle_jax.library_messages import without_library_messages
class Late:
    def __init__(self, message):
        self.message = message
    def __del__(self):
        raise RuntimeError(self.message)
with without_library_messages():
    Late({message!r})
with without_library_messages():
    pass
Late({message!r})
"""


@pytest.mark.parametrize(("debug", "shown"), [("0", False), ("1", True)])
def test_a_command_is_without_the_log_of_libraries(monkeypatch, caplog, debug, shown):
    monkeypatch.setenv(DEBUG, debug)

    def work():
        logging.error("the metadata is damaged")

    assert run_command(work, program="test") == 0
    assert ("the metadata is damaged" in caplog.text) == shown
    logging.error("after it")
    assert "after it" in caplog.text


def test_reads_that_nobody_waited_for_are_not_told(caplog):
    with without_library_messages():
        pass
    getLogger("asyncio").error("Future exception was never retrieved")
    getLogger("asyncio").error("another")
    assert caplog.messages == ["another"]


class Store:
    """Named as Orbax's."""

    async def _get_array_metadatas(self):
        """Never begun."""

    async def another(self):
        """Likewise."""


def test_reads_that_never_began_are_not_told():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with without_library_messages():
            pass
        for read in (Store()._get_array_metadatas(), Store().another()):
            del read
    assert [str(w.message) for w in told] == ["coroutine 'Store.another' was never awaited"]


@pytest.mark.parametrize(("message", "times"), [("Event loop is closed", 0), ("another", 2)])
def test_late_reads_of_a_damaged_file_are_not_told(message, times):
    """During the command, and after it."""
    code = LATE.format(message=message)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count(f"RuntimeError: {message}") == times
