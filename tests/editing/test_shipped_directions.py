"""The directions that ship fit the generator that ships, and do what their names say."""

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.editing.direction_files import find_direction, shipped_directions


@pytest.fixture(scope="module")
def model():
    return ij.load("avatar_generator")


@pytest.fixture(scope="module")
def find(model):
    layers, (_, w_dim) = model.style_layers, model.latents_shape
    generator = model.generator_fingerprint
    return lambda name: find_direction(name, layers, w_dim=w_dim, generator=generator)


def test_all_belong_to_the_shipped_generator(find):
    names = shipped_directions()
    assert len(names) == 14
    for name in names:
        direction = find(name)
        assert direction.generator is not None
        assert direction.default_range is not None


def test_hair_is_blonder_and_skin_darker(model, find):
    """Of the mean latent: the hair above the brow, and the middle of the face."""
    mean = np.asarray(model.mean_latent())
    images = {}
    for name in ("blond_hair", "dark_skin"):
        direction = find(name)
        edited = mean + direction.default_range[1] * np.asarray(direction.array)
        images[name] = np.asarray(model.synthesize(edited.astype(np.float32)))[0]
    before = np.asarray(jax.device_get(model.synthesize(mean)))[0]
    hair, cheek = np.s_[8:16, 24:40], np.s_[36:44, 26:38]
    assert (images["blond_hair"] - before)[hair][..., :2].mean() > 0.2
    assert (images["dark_skin"] - before)[cheek].mean() < -0.2
