"""What several experiments are tested with."""

import jax
import pytest

from interestyle_jax.config.presets import attribute_config
from interestyle_jax.training.attribute_task import AttributeTask


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """A reader of avatars' attributes that is not trained."""
    folder = tmp_path_factory.mktemp("reader") / "weights"
    config = attribute_config()
    config.widths = (8, 8)
    task = AttributeTask(config)
    task.export(task.init(jax.random.key(0), {}), folder, extra={})
    return folder
