"""rosinality's StyleGAN2 files: any size and width, every key accounted for."""

import json
import pickle
import tracemalloc

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert
from tools.convert_weights.families.stylegan2 import read_architecture, restore_generator
from tools.convert_weights.mean_latent import sample_w_avg

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
    state = restore_generator(variables, registry.describe(module))
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
        (lambda c: c.update(latent_avg=np.zeros(5)), r"latent_avg is \[5\], expected \[6\]"),
        (lambda c: c.update(d={"convs.0.0.weight": np.zeros(4)}), "missing key d/final_conv.0"),
        (lambda c: c["g_ema"].pop("convs.0.noise.weight"), "missing key g_ema/convs.0.noise"),
        (lambda c: c["g_ema"].update({"extra.weight": np.zeros(2)}), "unused key g_ema/extra.w"),
        (lambda c: c.update({"other": np.zeros(2)}), "unused key other"),
        (
            lambda c: c["g_ema"].update({"to_rgb1.bias": np.zeros((1, 4, 1, 1))}),
            r"is a generator of 4 channels, expected 3 \(RGB\)",
        ),
        (
            lambda c: c["g_ema"].update({"to_rgbs.0.bias": np.zeros((1, 4, 1, 1))}),
            r"to_rgbs.0.bias is \[1, 4, 1, 1\], expected \[1, 3, 1, 1\]",
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


def test_two_files_with_the_same_keys_are_refused(checkpoint, tmp_path):
    files = [write(tmp_path / name, checkpoint) for name in ("a.ckpt", "b.ckpt")]
    with pytest.raises(InputError, match="keys are in two of them, such as g/input.input"):
        convert(files, tmp_path / "out")


@pytest.mark.parametrize("resolution", [256, 512, 1024])
def test_official_sizes_are_read_from_the_shapes(golden_dir, resolution):
    manifest = json.loads((golden_dir / "manifests" / f"rosinality_{resolution}.json").read_text())
    arrays = {
        key: np.broadcast_to(np.float32(0), shape)
        for key, shape, _ in manifest["sections"]["g_ema"]
    }
    assert read_architecture(arrays, "here") == Generator(resolution=resolution)


def test_a_missing_mean_latent_is_sampled_from_the_mapping(generator, checkpoint, tmp_path):
    del checkpoint["latent_avg"]
    module, variables = generator
    # Trained mapping weights are a hundred times those of the synthesis.
    mapping = jax.tree.map(lambda x: 100 * x, variables["params"]["mapping"])
    variables = variables | {"params": variables["params"] | {"mapping": mapping}}
    checkpoint["g_ema"] = restore_generator(variables, registry.describe(module))
    source = write(tmp_path / "g.ckpt", checkpoint)
    report = convert([source], tmp_path / "out")
    assert "computed from 100,000 samples (seed 0)" in report
    weights = load_weights(tmp_path / "out")
    assert weights.metadata["extra"]["w_avg"] == {"samples": 100_000, "seed": 0}
    w_avg = weights.variables["w_avg"]
    # Other samples agree within four standard errors of the mean.
    z = np.random.default_rng(1).standard_normal((20_000, 6)).astype(np.float32)
    w = np.asarray(module.apply(variables, z, method="map"), np.float64)
    error = w.std(axis=0) * np.sqrt(1 / 20_000 + 1 / 100_000)
    assert np.all(np.abs(w.mean(axis=0) - w_avg) < 4 * error)
    again = sample_w_avg(variables, weights.metadata["architectures"]["generator"])
    np.testing.assert_array_equal(again.variables, w_avg)


def test_optimizer_state_and_namespace_are_left_out_and_summed_up(checkpoint, tmp_path):
    moments = {str(i): {"exp_avg": np.zeros(2), "step": 3} for i in range(100)}
    checkpoint |= {"g_optim": {"state": moments}, "args": {"size": 32}, "ada_aug_p": 0.5}
    report = convert([write(tmp_path / "g.ckpt", checkpoint)], tmp_path / "out")
    (line,) = [x for x in report.splitlines() if x.startswith("ignored:")]
    assert line == "ignored: g/input.input, g_optim/state/*/exp_avg (100)"


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


def test_large_files_are_copied_once_at_most(tmp_path):
    """Counts what NumPy allocates; the source lies in its file (measured: 1.02 times its size)."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    module = Generator(resolution=8, mapping_depth=1, channel_base=4096)
    shapes = registry.variable_shapes(registry.describe(module))
    variables = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    state = restore_generator(variables, registry.describe(module))
    content = {"g_ema": {k: torch.from_numpy(v) for k, v in state.items()}}
    torch.save(content | {"latent_avg": torch.zeros(512)}, tmp_path / "g.pt")
    tracemalloc.start()
    try:
        convert([tmp_path / "g.pt"], tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = (tmp_path / "g.pt").stat().st_size
    assert size > 30e6
    assert peak < 1.5 * size


def reference_logits(d, images):
    """rosinality's discriminator on his keys, for one group of images, in float64."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    F = torch.nn.functional
    d = {k: torch.from_numpy(v).double() for k, v in d.items()}
    fir = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8

    def lrelu(x, key):
        bias = d[key].reshape(1, -1, *[1] * (x.ndim - 2))
        return F.leaky_relu(x + bias, 0.2) * 2**0.5

    def conv(x, key, **options):
        weight = d[key] / d[key][0].numel() ** 0.5
        return F.conv2d(x, weight, **options)

    def blur(x, padding):
        kernel = torch.outer(fir, fir).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(x, [padding] * 4), kernel, groups=x.shape[1])

    def dense(x, key):
        return x @ d[f"{key}.weight"].T / x.shape[1] ** 0.5

    x = lrelu(conv(torch.from_numpy(images).double(), "convs.0.0.weight"), "convs.0.1.bias")
    for i in range(1, sum(k.endswith("skip.1.weight") for k in d) + 1):
        key = f"convs.{i}"
        y = lrelu(conv(x, f"{key}.conv1.0.weight", padding=1), f"{key}.conv1.1.bias")
        y = conv(blur(y, 2), f"{key}.conv2.1.weight", stride=2)
        y = lrelu(y, f"{key}.conv2.2.bias")
        x = (y + conv(blur(x, 1), f"{key}.skip.1.weight", stride=2)) / 2**0.5
    deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = torch.cat([x, deviation.expand(len(x), 1, 4, 4)], 1)
    x = lrelu(conv(x, "final_conv.0.weight", padding=1), "final_conv.1.bias")
    x = lrelu(dense(x.flatten(1), "final_linear.0"), "final_linear.0.bias")
    return (dense(x, "final_linear.1") + d["final_linear.1.bias"])[:, 0].numpy()


def test_converted_discriminator_judges_as_the_reference(checkpoint, tmp_path):
    """Shapes are written out, as his trainer has them for channels 6, 8 and 8 at 16, 8 and 4."""
    shapes = {"convs.0.0.weight": (6, 3, 1, 1), "convs.0.1.bias": (6,)}
    for i, (before, after) in enumerate([(6, 8), (8, 8)], 1):
        shapes |= {
            f"convs.{i}.conv1.0.weight": (before, before, 3, 3),
            f"convs.{i}.conv1.1.bias": (before,),
            f"convs.{i}.conv2.1.weight": (after, before, 3, 3),
            f"convs.{i}.conv2.2.bias": (after,),
            f"convs.{i}.skip.1.weight": (after, before, 1, 1),
        }
    shapes |= {
        "final_conv.0.weight": (8, 9, 3, 3),
        "final_conv.1.bias": (8,),
        "final_linear.0.weight": (8, 128),
        "final_linear.0.bias": (8,),
        "final_linear.1.weight": (1, 8),
        "final_linear.1.bias": (1,),
    }
    rng = np.random.default_rng(0)
    d = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    fir = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
    kernels = {f"convs.{i}.{name}.0.kernel": fir for i in (1, 2) for name in ("conv2", "skip")}
    source = write(tmp_path / "550000.ckpt", checkpoint | {"d": d | kernels})
    convert([source], tmp_path / "out")
    module, variables = load_weights(tmp_path / "out").part("discriminator")
    images = rng.normal(size=(3, 3, 16, 16)).astype(np.float32)
    got = jax.jit(module.apply)(variables, images.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(got, reference_logits(d, images), rtol=1e-5)
