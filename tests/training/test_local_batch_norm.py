"""`config.batch_norm`: a step with each device's own BatchNorm, against the plain one."""

import json

import jax
import numpy as np
import pytest

from interestyle_jax.config.presets import encoder_config
from interestyle_jax.errors import InputError
from interestyle_jax.parallel import sharding
from interestyle_jax.training.encoder_task import EncoderTask
from interestyle_jax.training.same_run import check_same_run, other_devices, with_older_fields

KEY = jax.random.key(3)


@pytest.fixture
def config(tiny_config):
    config = tiny_config()
    config.method.num_iterations = 1
    config.method.filter_radii = ()
    config.method.noise = "const"
    config.encoder.update({"widths": (2, 2, 4), "head_width": 2})
    return config


# The fast twin, with gradients too, is in tests/models/test_batch_norm.py.
@pytest.mark.slow
def test_gradients_are_the_mean_of_those_of_each_devices_rows(config):
    """Two passes of E, the second from the statistics of the first (disentanglement)."""
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, 32, 32, 3), np.uint8),
        "interest_mask": rng.integers(0, 2, (16, 32, 32, 1), np.uint8) * 255,
    }
    plain = EncoderTask(config)
    state = jax.jit(plain.init)(KEY, plain.initial)
    config.batch_norm = "local"
    local = EncoderTask(config)
    arguments = (KEY, state.params, state.batch_stats, local.frozen)
    mesh = sharding.make_mesh(fsdp=2)
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    with jax.set_mesh(mesh):
        step = jax.jit(local.gradients, in_shardings=(whole,) * 4 + (rows,))
        grads, stats, metrics = step(*arguments, batch)
    alone = jax.jit(plain.gradients)
    parts = [
        alone(*arguments, {name: x[i : i + 2] for name, x in batch.items()})
        for i in range(0, 16, 2)
    ]
    want = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want[0]))
    for got, wanted, scale in ((grads, want[0], largest), (stats, want[1], 1.0)):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)
    assert metrics["loss"] == pytest.approx(want[2]["loss"], rel=1e-5)


def test_other_values_are_refused(config):
    config.batch_norm = "sync"
    with pytest.raises(InputError, match="config.batch_norm: expected one of global, local, got"):
        EncoderTask(config)


def test_a_run_keeps_the_batch_norm_it_was_begun_with(tmp_path):
    config = encoder_config().lock()
    saved = json.loads(config.to_json())
    config.batch_norm = "local"
    now = json.loads(config.to_json())
    with pytest.raises(InputError, match="config.batch_norm: .* begun with 'global'"):
        check_same_run(saved, now, tmp_path)
    del saved["batch_norm"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    own, notices = with_older_fields(config, tmp_path)
    assert own.batch_norm == "global"
    assert any("config.batch_norm" in n and n.endswith("not with 'local'") for n in notices)


def test_other_devices_are_told_where_statistics_depend_on_them():
    local, everywhere = {"batch_norm": "local"}, {"batch_norm": "global"}
    (notice,) = other_devices({"num_devices": 8}, local, 4)
    assert "each of 8 devices" in notice and "of 4 from here on" in notice
    assert other_devices({"num_devices": 8}, local, 8) == []
    assert other_devices({"num_devices": 8}, everywhere, 4) == []
    assert other_devices({}, local, 4) == []
