"""What stands in for networks and figures where a case is about files: compiling takes seconds.

Reading, the loops around, saving and writing are the commands' own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from ml_collections import ConfigDict

from interestyle_jax.config import presets
from interestyle_jax.jobs import evaluation_job, evaluations
from interestyle_jax.training import trainer
from interestyle_jax.weights import save_weights


@struct.dataclass
class State:
    """The state of `ColourTask`."""

    step: jax.Array
    colour: jax.Array


class ColourTask:
    """Learns the mean colour of the images inside their masks; see `training.task.Task`."""

    batch_fields = ("image", "interest_mask")
    optional_fields = ()
    has_validation_loss = True

    def __init__(self):
        self.frozen = {"scale": np.float32([1 / 255])}
        self.initial = {}
        self.weight_digests = {}

    def init(self, key, initial):
        return State(jnp.int32(0), jax.random.uniform(key, (3,)))

    def phase(self, step):
        return ()

    def train_step(self, key, state, frozen, batch, *, phase=()):
        change = (self._colours(frozen, batch) - state.colour).mean(0)
        metrics = {"loss": jnp.square(change).mean()}
        return State(state.step + 1, state.colour + 0.1 * change), metrics

    def validate_step(self, key, state, frozen, batch):
        return {"loss": jnp.square(self._colours(frozen, batch) - state.colour).mean(-1)}

    def images(self, key, state, frozen, batch):
        return batch["image"][:, None].astype(jnp.float32) * frozen["scale"]

    def exported(self, state):
        return state

    def export(self, state, directory, *, extra):
        save_weights(
            directory,
            {"colour": np.asarray(state.colour)},
            family="colour",
            architectures={},
            licence="none: a test's",
            extra=extra,
            force=True,
        )

    def _colours(self, frozen, batch):
        inside = batch["image"] * (batch["interest_mask"] > 0)
        return inside.astype(jnp.float32).mean((1, 2)) * frozen["scale"]


def mean_square(a: jax.Array, b: jax.Array) -> jax.Array:
    """A distance [B] in LPIPS's place; one function, so that what uses it is compiled once."""
    return jnp.square(a - b).mean((1, 2, 3))


def put_in_place(patch: pytest.MonkeyPatch, *, networks: bool) -> None:
    """Replaces LPIPS and the figures of `evaluate`, and, without `networks`, the training's task.

    LPIPS's weights are still read.
    """
    load_distance = evaluations.load_distance

    def load(lpips, **place):
        load_distance(lpips, **place)
        return jax.tree_util.Partial(mean_square)

    patch.setattr(evaluations, "load_distance", load)
    patch.setattr(evaluation_job, "draw_figures", lambda measurements, folder: None)
    if not networks:
        patch.setattr(trainer, "make_task", lambda config: _colour_task())
    # A config that lost its sizes would train the official encoder: 10 GB a batch.
    encoder_config = presets.encoder_config
    patch.setattr(presets, "encoder_config", lambda preset: small(encoder_config(preset)))


def small(config: ConfigDict) -> ConfigDict:
    """An encoder's config whose defaults are tiny."""
    config.encoder.update(input_size=32, units=(1, 1), widths=(4, 4, 8), head_width=8)
    return config


@functools.cache
def _colour_task() -> ColourTask:
    return ColourTask()
