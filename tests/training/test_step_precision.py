"""Training steps: float32 is float32, bfloat16's convolutions stay fast."""

import functools

import jax
import numpy as np
import pytest

from interestyle_jax.config.presets import generator_config
from interestyle_jax.training.trainer import make_task

SIZE = 32


def lowered(task, batch, products):
    """The products of every kind of step."""
    state = jax.eval_shape(task.init, jax.random.key(0), getattr(task, "initial", {}))
    found = []
    for phase in {task.phase(i) for i in range(4)}:
        found += products(
            functools.partial(task.train_step, phase=phase),
            *(jax.random.key(0), state, task.frozen, batch),
        )
    return found


@pytest.fixture
def batch():
    return {
        "image": np.zeros((4, 2 * SIZE, 2 * SIZE, 3), np.uint8),
        "interest_mask": np.zeros((4, 2 * SIZE, 2 * SIZE, 1), np.uint8),
    }


@pytest.fixture
def config(tiny_config):
    config = tiny_config()
    config.weights.lpips = "lpips_alex"
    config.loss = {"l2": 1.0, "lpips": 0.8}
    return config


def test_a_float32_step_is_exact(config, batch, products):
    found = lowered(make_task(config), batch, products)
    assert [product for product in found if not product.exact] == []


def test_a_bfloat16_step_asks_for_no_precision_in_its_convolutions(config, batch, products):
    config.compute_dtype = "bfloat16"
    # The filter's blur stays float32, by convolutions of its own.
    config.method.filter_radii = (0.0,)
    found = lowered(make_task(config), batch, products)
    assert all(product.fast or product.exact for product in found)
    assert all(product.fast for product in found if product.kind == "convolution")
    assert any(product.exact for product in found)


def test_a_generators_steps_are_exact(products):
    config = generator_config()
    config.batch_size = 4
    config.generator = {
        "resolution": 8, "z_dim": 4, "w_dim": 4, "mapping_depth": 1, "channel_base": 32,
        "channel_max": 4,
    }  # fmt: skip
    config.discriminator = {"channel_base": 32, "channel_max": 4}
    config.gan.r1_every = config.gan.path_length_every = 2
    task = make_task(config)
    found = lowered(task, {"clean": np.zeros((4, 8, 8, 3), np.uint8)}, products)
    assert [product for product in found if not product.exact] == []
