"""Eight fake CPU devices, no random plugins, and the golden data of the official code."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

SHARED = Path(__file__).resolve().parents[2] / "shared"
# Where the shared folder is there, any other reason to skip is a failure.
EXPECTED_SKIPS = ("could not import 'torch'", "torch is not installed")


def _fail_unexpected_skip(report):
    if report.skipped and not hasattr(report, "wasxfail") and SHARED.is_dir():
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(EXPECTED_SKIPS):
            report.outcome, report.longrepr = "failed", f"unexpected skip: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Skipped tests."""
    return _fail_unexpected_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Test files skipped as a whole."""
    return _fail_unexpected_skip((yield))


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with the official code's numbers; tests that need it skip where it is missing."""
    directory = SHARED / "golden"
    if not directory.is_dir():
        pytest.skip(f"golden data not found at {directory}")
    return directory


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder beside the project with pictures and official files."""
    if not SHARED.is_dir():
        pytest.skip(f"shared folder not found at {SHARED}")
    return SHARED
