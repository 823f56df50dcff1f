"""A machine of stand-ins for every test."""

import pytest

from tests.launch.stand_ins import Machine


@pytest.fixture
def machine(tmp_path):
    """A machine with system tools and no stubs yet."""
    return Machine(tmp_path)
