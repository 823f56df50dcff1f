"""One generator tuned on several images, each at a latent of its own."""

import dataclasses

import jax
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.optimisation import shared_tuning
from interestyle_jax.inversion.optimisation.optimiser import MAPPING
from interestyle_jax.inversion.optimisation.recipes import Terms
from interestyle_jax.inversion.optimisation.shared_tuning import Frames
from interestyle_jax.parallel.sharding import local_mesh


@pytest.fixture(scope="module")
def tuned(tiny_weights):
    """A model, four frames, what was tuned on their left halves, and the losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:2])
        # LPIPS takes a minute to compile; the film of the slow set has it.
        patch.setattr(shared_tuning, "TERMS", Terms(pixel=1.0, lpips_network="alex"))
        yield _tuned(load(tiny_weights / "inverter", mesh=local_mesh()))


def _tuned(model):
    rng = np.random.default_rng(0)
    w_plus = rng.normal(size=(4, *model.latents_shape)).astype(np.float32)
    images = np.clip(np.asarray(model.synthesize(w_plus)) * 0.5 + 0.3, -1, 1)
    masks = np.zeros((4, 32, 32, 1), np.float32)
    masks[:, :, :16] = 1
    frames, losses = Frames(w_plus, images, masks), []
    found = shared_tuning.tune_generator(
        model, [frames] * 12, learning_rate=3e-3, on_step=losses.append
    )
    return model, frames, found, losses


def test_the_loss_falls_where_the_masks_are(tuned):
    model, frames, found, losses = tuned
    assert len(losses) == 12 and losses[-1] < 0.6 * losses[0]
    drawn = dataclasses.replace(model, variables=model.variables | {"generator": found}).synthesize(
        frames.w_plus
    )
    error = np.abs(np.asarray(drawn) - frames.images)[:, :, :14].mean()
    before = np.abs(np.asarray(model.synthesize(frames.w_plus)) - frames.images)[:, :, :14].mean()
    assert error < 0.8 * before


def test_the_rest_of_the_model_stays(tuned):
    model, _, found, _ = tuned
    own = model.variables["generator"]
    jax.tree.map(np.testing.assert_array_equal, found["noise"], own["noise"])
    mapping = (found["params"][MAPPING], own["params"][MAPPING])
    jax.tree.map(np.testing.assert_array_equal, *mapping)
    changed = jax.tree.leaves(
        jax.tree.map(lambda a, b: bool((a != b).any()), found["params"], own["params"])
    )
    assert any(changed)
    # Not donated away.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(own)))


def test_a_loss_that_is_not_finite_ends_it(tuned):
    model, frames, _, _ = tuned
    with pytest.raises(InputError, match="--tune-rate: 1e"):
        shared_tuning.tune_generator(model, [frames] * 4, learning_rate=1e30)
