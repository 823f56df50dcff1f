"""The whole inputs, and a folder for a case."""

import itertools
import shutil

import jax
import pytest

from tests.robustness.stand_ins import put_in_place

CASES = itertools.count()


@pytest.fixture(scope="session")
def whole_inputs(tmp_path_factory, tiny_weights):
    """The folder of whole inputs."""
    pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    from tests.robustness.whole_inputs import make_inputs

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch, networks=False)
        make_inputs(folder, tiny_weights)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A place for a case's folder, gone after it."""
    yield tmp_path / "case"
    shutil.rmtree(tmp_path / "case", ignore_errors=True)
    # Programs of 1,500 cases are 15 GB.
    if next(CASES) % 100 == 99:
        jax.clear_caches()
