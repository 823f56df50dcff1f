"""What the tests of trainings share."""

import pytest

from interestyle_jax.config.presets import encoder_config


@pytest.fixture(scope="session")
def tiny_config(tiny_weights):
    """Makes configs of two iterations of a tiny encoder, with an L2 loss alone."""

    def make():
        config = encoder_config("interestyle")
        config.weights.generator = str(tiny_weights / "generator")
        config.weights.lpips = ""
        config.encoder = {
            "type": "BackboneEncoder",
            "input_size": 32,
            "units": (1, 1),
            "widths": (4, 4, 8),
            "head_width": 8,
        }
        config.method.num_iterations = 2
        config.method.filter_radii = (16.0,)
        config.loss = {"l2": 1.0}
        return config

    return make
