"""The Graphonomy provider on a tiny random network: its input, mirror symmetry, scales, devices.

That six scales at full size give the official label map is tested in tests/models.
"""

import contextlib
import json

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import graphonomy as provider_module
from interestyle_jax.interest.providers import make_provider
from interestyle_jax.interest.providers.graphonomy import SCALES, network_inputs
from interestyle_jax.jobs import masks
from interestyle_jax.jobs.run import run_job
from interestyle_jax.models import registry
from interestyle_jax.models.graphonomy import LABELS, MIRRORED, Graphonomy
from interestyle_jax.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weight directory of random numbers."""
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
    return directory


@pytest.fixture(scope="module")
def provider(weights):
    return make_provider("graphonomy", weights=weights, scales=(1.0, 0.5))


@contextlib.contextmanager
def guard():
    """In every thread, only transfers that are asked for."""
    before = jax.config.jax_transfer_guard
    jax.config.update("jax_transfer_guard", "disallow")
    try:
        yield
    finally:
        jax.config.update("jax_transfer_guard", before)


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


def test_each_size_compiles_once_a_scale_and_only_labels_come_back(provider, image, monkeypatch):
    fetched = []
    fetch = jax.device_get

    def watched(tree):
        fetched.append([(x.shape, str(x.dtype)) for x in jax.tree.leaves(tree)])
        return fetch(tree)

    monkeypatch.setattr(jax, "device_get", watched)
    before = provider_module._add_scale._cache_size()
    tall = np.ascontiguousarray(image[:, :20])
    with guard():
        for one in (image, tall, image, tall):
            provider(one)
    assert provider_module._add_scale._cache_size() - before <= 4
    assert fetched == 2 * [[((33, 47), "uint8")], [((33, 20), "uint8")]]
    known = provider_module._add_scale._cache_size()
    provider(image)
    assert provider_module._add_scale._cache_size() == known
    (variables,) = provider._variables.values()
    for leaf in jax.tree.leaves(variables):
        assert isinstance(leaf, jax.Array) and leaf.devices() == {jax.local_devices()[0]}


def test_an_image_gives_the_same_labels_on_any_device(weights, image):
    provider = make_provider("graphonomy", weights=weights, scales=(1.0,))
    expected = provider(image).labels
    with provider._device() as first:
        labels = provider(image).labels
        # The first one is taken, so another did it.
        assert len(provider._variables) == 2 and provider._variables[first]
    np.testing.assert_array_equal(labels, expected)
    assert provider._free.qsize() == len(jax.local_devices())


def test_the_command_sends_nothing_unasked(provider, weights, image, tmp_path, monkeypatch):
    def guarded(*args, **options):
        with guard():
            return run_job(*args, **options)

    monkeypatch.setattr(masks, "run_job", guarded)
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.fromarray(image).save(tmp_path / "images" / f"p{i}.png")
    out = tmp_path / "out"
    argv = ["masks", "--provider=graphonomy", f"--weights={weights}", "--scales=1,0.5"]
    assert main([*argv, f"--images={tmp_path / 'images'}", f"--out={out}"]) == 0
    expected = provider(image).labels
    for i in range(3):
        labels = read_image(out / "labels" / f"p{i}.png")[..., 0]
        np.testing.assert_array_equal(labels, expected)
    assert json.loads((out / "report.json").read_text())["num_images"] == 3


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
