"""What a step is on accelerators, against the form that CPUs get."""

import jax
import numpy as np
import pytest

from interestyle_jax.config.presets import encoder_config
from interestyle_jax.models.backend import built_for, joins_passes, refinement_loop
from interestyle_jax.parallel import sharding
from interestyle_jax.training.encoder_task import EncoderTask
from interestyle_jax.training.same_run import check_same_run

KEY = jax.random.key(3)


def test_iterations_are_scanned_and_passes_joined_off_the_cpu():
    assert refinement_loop() == "unroll" and not joins_passes()
    for platform in ("gpu", "tpu"):
        with built_for(platform):
            assert refinement_loop() == "scan" and joins_passes()
        assert refinement_loop(platform) == "scan"


def test_a_run_may_change_its_loop(tmp_path, tiny_config):
    config = encoder_config().to_dict()
    begun = {**config, "method": {**config["method"], "loop": "unroll"}}
    check_same_run(begun, config, tmp_path)
    config = tiny_config()
    assert EncoderTask(config).loop == "unroll"
    config.method.loop = "scan"
    assert EncoderTask(config).loop == "scan"


# The fast twins are in test_encoder_gradients.py and tests/models/test_batch_norm.py.
@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["global", "local"])
def test_gradients_are_those_of_the_form_for_cpus(tiny_config, batch_norm):
    config = tiny_config()
    config.method.noise = "const"
    config.batch_norm = batch_norm
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, 32, 32, 3), np.uint8),
        "interest_mask": rng.integers(0, 2, (16, 32, 32, 1), np.uint8) * 255,
    }
    plain = EncoderTask(config)
    with built_for("gpu"):
        other = EncoderTask(config)
    assert other.joins_passes and other.loop == "scan"
    state = jax.jit(plain.init)(KEY, plain.initial)
    mesh = sharding.make_mesh()
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    found, collectives = [], []
    with jax.set_mesh(mesh):
        for task in (plain, other):
            arguments = (KEY, state.params, state.batch_stats, task.frozen, batch)
            step = jax.jit(task.gradients, in_shardings=(whole,) * 4 + (rows,))
            compiled = step.lower(*arguments).compile()
            found.append(compiled(*arguments))
            collectives.append(compiled.as_text())
    # Rows in turn stay where they are.
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        assert collectives[1].count(f" {kind}(") <= collectives[0].count(f" {kind}(")
    want, got = found
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want[0]))
    for a, b, scale in ((got[0], want[0], largest), (got[1:], want[1:], 1.0)):
        jax.tree.map(
            lambda x, y, scale=scale: np.testing.assert_allclose(
                x, y, rtol=1e-4, atol=2e-5 * scale
            ),
            a,
            b,
        )
