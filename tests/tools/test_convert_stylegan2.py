"""rosinality's StyleGAN2 files: any size and width, every key accounted for."""

import json
import pickle

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert
from tools.convert_weights.families.stylegan2 import generator_entries, read_architecture

TINY = {
    "resolution": 32,
    "w_dim": 6,
    "z_dim": 6,
    "mapping_depth": 3,
    "channel_base": 128,
    "channel_max": 8,
}


@pytest.fixture(scope="module")
def generator():
    """A tiny generator and random variables."""
    module = Generator(**TINY)
    rng = np.random.default_rng(0)
    shapes = registry.variable_shapes(registry.describe(module))
    return module, jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.fixture
def checkpoint(generator):
    """rosinality's layout of it, as his trainer writes it."""
    module, variables = generator
    state = {}
    for entry in generator_entries(module.resolution, module.mapping_depth):
        value = variables
        for name in entry.target.split("/"):
            value = value[name]
        state[entry.source] = np.ascontiguousarray(entry.layout.to_source(value))
    fir = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 16
    for i in range(3):
        state[f"convs.{2 * i}.conv.blur.kernel"] = fir
        state[f"to_rgbs.{i}.upsample.kernel"] = fir
    return {
        "g_ema": state,
        "g": {"input.input": state["input.input"]},
        "latent_avg": np.arange(6, dtype=np.float32),
    }


def write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def test_converted_generator_draws_the_same(generator, checkpoint, tmp_path):
    module, variables = generator
    report = convert([write(tmp_path / "g.pt.ckpt", checkpoint)], tmp_path / "out")
    assert "family stylegan2" in report and "ignored" in report
    model = ij.load(tmp_path / "out")
    built = registry.build(model.metadata["architectures"]["generator"])
    assert built == module
    np.testing.assert_array_equal(model.w_avg, checkpoint["latent_avg"])
    jax.tree.map(np.testing.assert_array_equal, model.variables["generator"], variables)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c: c.pop("latent_avg"), "no latent_avg"),
        (lambda c: c["g_ema"].pop("convs.0.noise.weight"), "missing key convs.0.noise.weight"),
        (lambda c: c["g_ema"].update({"extra.weight": np.zeros(2)}), "unused key extra.weight"),
        (lambda c: c.update({"other": np.zeros(2)}), "unused key other"),
        (
            lambda c: c["g_ema"].update({"to_rgb1.bias": np.zeros((1, 4, 1, 1))}),
            r"to_rgb1.bias is \[1, 4, 1, 1\], expected \[1, 3, 1, 1\]",
        ),
        (
            lambda c: c["g_ema"].update({"to_rgbs.0.upsample.kernel": np.ones((4, 4))}),
            "to_rgbs.0.upsample.kernel is another filter",
        ),
        (lambda c: c["g_ema"].pop("style.1.weight"), "no StyleGAN2 generator can be read"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_written(checkpoint, tmp_path, break_it, message):
    checkpoint["g_ema"] = dict(checkpoint["g_ema"])
    break_it(checkpoint)
    with pytest.raises(InputError, match=message):
        convert([write(tmp_path / "g.ckpt", checkpoint)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("resolution", [256, 512, 1024])
def test_official_sizes_are_read_from_the_shapes(golden_dir, resolution):
    manifest = json.loads((golden_dir / "manifests" / f"rosinality_{resolution}.json").read_text())
    arrays = {
        key: np.broadcast_to(np.float32(0), shape)
        for key, shape, _ in manifest["sections"]["g_ema"]
    }
    assert read_architecture(arrays, "here") == Generator(resolution=resolution)


def test_part_keeps_the_generator_with_its_mean_latent(checkpoint, tmp_path):
    source = write(tmp_path / "g.ckpt", checkpoint)
    convert([source], tmp_path / "generator", part="generator")
    assert ij.load(tmp_path / "generator").metadata["family"] == "stylegan2"
    np.testing.assert_array_equal(ij.load(tmp_path / "generator").w_avg, checkpoint["latent_avg"])
    convert([source], tmp_path / "w_avg", part="w_avg")
    assert load_weights(tmp_path / "w_avg").variables.keys() == {"w_avg"}
    with pytest.raises(InputError, match="has no encoder, it has generator, w_avg"):
        convert([source], tmp_path / "encoder", part="encoder")
    assert not (tmp_path / "encoder").exists()
