"""The Graphonomy provider on a tiny random network: its input, mirror symmetry and scales.

That six scales at full size give the official label map is tested in tests/models.
"""

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import graphonomy as provider_module
from interestyle_jax.interest.providers import make_provider
from interestyle_jax.interest.providers.graphonomy import SCALES, network_inputs
from interestyle_jax.models import registry
from interestyle_jax.models.graphonomy import LABELS, MIRRORED, Graphonomy
from interestyle_jax.weights import save_weights


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    module = Graphonomy((4, 4, 4, 5, 6, 6, 8, 8, 9), 0, features=8, low_level=3, hidden=5)
    rng = np.random.default_rng(0)

    def draw(tree, leaf=""):
        if isinstance(tree, dict):
            return {k: draw(v, k) for k, v in tree.items()}
        if leaf in ("var", "scale"):
            return rng.uniform(0.8, 1.2, tree.shape).astype(np.float32)
        spread = 0.2 if len(tree.shape) < 2 else (2 / np.prod(tree.shape[:-1])) ** 0.5
        return rng.normal(0, spread, tree.shape).astype(np.float32)

    directory = tmp_path_factory.mktemp("graphonomy") / "tiny"
    save_weights(
        directory,
        {"parser": draw(registry.variable_shapes(registry.describe(module)))},
        family="graphonomy",
        architectures={"parser": registry.describe(module)},
        licence="none: random numbers",
    )
    return make_provider("graphonomy", weights=directory, scales=(1.0, 0.5))


@pytest.fixture(scope="module")
def image():
    """Darker to the left, so that its mirror image is another image."""
    noise = np.random.default_rng(1).integers(0, 60, (33, 47, 3))
    return (noise + np.linspace(0, 190, 47)[None, :, None] ** [1, 0.9, 0.8]).astype(np.uint8)


def test_labels_are_the_networks():
    assert provider_module.LABELS == LABELS
    assert (LABELS.index("hair"), LABELS.index("face")) == (2, 13)


def test_inputs_are_bgr_of_the_whole_part_of_the_size(image):
    inputs = list(network_inputs(image))
    assert [x.shape[1:3] for x in inputs] == [(int(33 * s), int(47 * s)) for s in SCALES]
    np.testing.assert_allclose(inputs[0][0], image[..., ::-1] / 127.5 - 1, atol=1e-6)
    small = Image.fromarray(image).resize((23, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        inputs[1][0, ..., 2], np.asarray(small)[..., 0] / 127.5 - 1, atol=1e-6
    )
    (dot,) = network_inputs(image[:1, :1], scales=(0.5,))
    assert dot.shape == (1, 1, 1, 3)


def test_a_mirrored_image_gives_the_mirrored_labels(provider, image):
    logits = provider.logits(image)
    assert logits.shape == (33, 47, 20) and logits.std() > 1e-3
    mirrored = provider.logits(np.ascontiguousarray(image[:, ::-1]))
    np.testing.assert_allclose(mirrored, logits[:, ::-1, list(MIRRORED)], atol=1e-5)
    assert np.abs(mirrored - logits).max() > 1e-3


def test_scales_are_summed(provider, image, monkeypatch):
    both = provider.logits(image)
    parts = []
    for scale in (1.0, 0.5):
        monkeypatch.setattr(provider, "scales", (scale,))
        parts.append(provider.logits(image))
    np.testing.assert_allclose(both, parts[0] + parts[1], atol=1e-5)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3


def test_regions_are_those_of_the_classes(provider, image, monkeypatch):
    labels = provider.logits(image).argmax(-1)
    chosen = np.unique(labels)[:2]
    monkeypatch.setattr(provider, "_interest", tuple(chosen))
    masks = provider(image)
    np.testing.assert_array_equal(masks.labels, labels)
    np.testing.assert_array_equal(masks.interest[..., 0] == 255, np.isin(labels, chosen))
    np.testing.assert_array_equal(masks.face[..., 0] == 255, labels == 13)
    with pytest.raises(InputError, match="--classes: 'nose', expected some of background, hat"):
        make_provider("graphonomy", weights="anything", classes=("nose",))
