"""NSCD against plain NumPy on the styles of a tiny generator."""

import dataclasses

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.evaluation.style_alignment import compared_layers, measure_anchors, nscd


@pytest.fixture(scope="module")
def model(tiny_weights):
    """Its mapping network's weights are enlarged: as drawn, its samples are all alike."""
    loaded = ij.load(tiny_weights / "generator")
    generator = loaded.variables["generator"]
    mapping = jax.tree.map(lambda x: x * 30, generator["params"]["mapping"])
    variables = generator | {"params": generator["params"] | {"mapping": mapping}}
    return dataclasses.replace(loaded, variables={"generator": variables})


def units(model, w_plus):
    """Styles of unit length, of the layers that LSAP compares: one a row of w_plus."""
    found = {}
    for layer, style in zip(model.style_layers, model.styles(w_plus), strict=True):
        if not layer.is_rgb or layer.row == model.latents_shape[0] - 1:
            style = np.asarray(style, np.float64)
            found[layer.name] = style / np.linalg.norm(style, axis=1, keepdims=True)
    assert len(found) == model.latents_shape[0]
    return list(found.values())


def test_nscd_is_the_cosine_distance_to_the_mean_style(model):
    anchors = measure_anchors(model, num_samples=2000)
    assert len(compared_layers(model.style_layers)) == len(anchors.styles)
    rng = np.random.RandomState(0)
    w = np.concatenate([model.map(rng.randn(1000, 16).astype(np.float32)) for _ in range(2)])
    samples = units(model, np.repeat(w[:, None], 8, axis=1))
    for anchor, own in zip(anchors.styles, samples, strict=True):
        np.testing.assert_allclose(anchor, own.mean(axis=0), atol=1e-6)

    def by_hand(unit_styles):
        pairs = zip(unit_styles, samples, strict=True)
        return 1 - np.mean([own @ known.mean(axis=0) for own, known in pairs], axis=0)

    assert float(anchors.of_samples) == pytest.approx(by_hand(samples).mean(), abs=1e-6)
    assert anchors.of_samples > 1e-3
    w_plus = rng.normal(0, 3, (2, 3, 8, 16)).astype(np.float32)
    module, variables = model.network("generator"), model.variables["generator"]
    found = nscd(anchors, variables, w_plus, module=module)
    np.testing.assert_allclose(found, by_hand(units(model, w_plus[-1])), atol=1e-6)
    assert np.ptp(found) > 1e-4


def test_without_a_mapping_network_there_is_none(model):
    generator = model.variables["generator"]
    params = {name: x for name, x in generator["params"].items() if name != "mapping"}
    bare = dataclasses.replace(model, variables={"generator": generator | {"params": params}})
    assert measure_anchors(bare) is None
