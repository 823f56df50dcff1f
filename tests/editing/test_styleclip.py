"""Edits by text on tiny networks: measured channels, directions, mappers, optimised latents."""

import functools
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.data.avatars.captions import captions_of_style
from interestyle_jax.editing.clip import load_clip, read_templates
from interestyle_jax.editing.style_space import flat_index, join_styles, split_styles
from interestyle_jax.editing.styleclip import channel_measurement as measurement
from interestyle_jax.editing.styleclip import global_directions as gd
from interestyle_jax.editing.styleclip.mapper import load_mapper
from interestyle_jax.editing.styleclip.optimisation import optimise_latents
from interestyle_jax.errors import InputError
from interestyle_jax.jobs.edits import edit_files
from interestyle_jax.jobs.text_edits import mapper_edit, text_edit
from interestyle_jax.models import registry
from interestyle_jax.models.clip import CLIP
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.styleclip_mapper import StyleMapper
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights, save_weights

TOKENS = captions_of_style("toon-head").token_ids
TOWERS = {"vision_layers": 1, "vision_width": 8, "vision_heads": 2, "vision_mlp": 8}
TOWERS |= {"text_layers": 1, "text_width": 8, "text_heads": 2, "text_mlp": 8}
NETWORK = CLIP(
    **TOWERS,
    embed_dim=6,
    image_size=16,
    patch_size=8,
    context_length=24,
    vocab_size=len(TOKENS),
    token_ids=TOKENS,
    quick_gelu=False,
)
OPTIONS = {"num_images": 2, "num_samples": 6, "batch_size": 4, "report": lambda line: None}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def drawn(module, part, directory, *, seed=0, **extra):
    rng = np.random.default_rng(seed)
    shapes = registry.variable_shapes(registry.describe(module))

    def draw(path, spec):
        spread = 0.1 if len(spec.shape) < 2 else np.prod(spec.shape[:-1]) ** -0.5
        ones = path[-1].key in ("scale", "var")
        return np.asarray(ones + spread * rng.normal(size=spec.shape) * (not ones), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return save_weights(
        directory,
        {part: variables},
        family=part,
        architectures={part: registry.describe(module)},
        licence="none",
        extra=extra,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("styleclip")


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(drawn(NETWORK, "clip", folder / "clip"))


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return str(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def model(weights):
    return ij.load(weights)


@pytest.fixture(scope="module")
def channels(weights, clip, folder):
    monkey = pytest.MonkeyPatch()
    monkey.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    out = measurement.measure_channels(weights, clip, folder / "channels", **OPTIONS)
    monkey.undo()
    return out


def test_a_channels_effect_is_what_its_images_show(channels, model, clip):
    effects = gd.load_channel_effects(channels)
    layers = model.style_layers
    effects.check(layers)
    samples = measurement.style_statistics(
        jax.random.key(0), model, num_samples=6, num_first=2, truncation_psi=0.7, batch_size=4
    )
    place = flat_index(layers, 3, 5)
    flat = np.repeat(samples.first[:, None], 2, axis=1)
    flat[:, 0, place] = samples.mean[place] - 5 * samples.std[place]
    flat[:, 1, place] = samples.mean[place] + 5 * samples.std[place]
    styles = split_styles(jnp.asarray(flat.reshape(4, -1)), layers)
    features = np.asarray(clip.image_features(model.synthesize_from_styles(styles)), np.float64)
    change = features.reshape(2, 2, -1)[:, 1] - features.reshape(2, 2, -1)[:, 0]
    mean = (change / np.linalg.norm(change, axis=1, keepdims=True)).mean(axis=0)
    row = flat_index(layers, 3, 5, with_rgb=False)
    np.testing.assert_allclose(effects.fs3[row], mean / np.linalg.norm(mean), atol=1e-3)
    std = np.concatenate(effects.s_std)
    np.testing.assert_allclose(std[place], samples.std[place], rtol=1e-5)
    found = load_weights(channels)
    assert found.metadata["extra"]["made_with"]["num_images"] == 2
    assert not channels.with_name("channels.parts").exists()


def test_statistics_are_those_of_the_samples(model):
    options = {"num_samples": 6, "num_first": 6, "truncation_psi": 0.7, "batch_size": 4}
    samples = measurement.style_statistics(jax.random.key(0), model, **options)
    np.testing.assert_allclose(samples.mean, samples.first.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(samples.std, samples.first.std(axis=0), atol=1e-4)
    w = model.map(jax.random.normal(jax.random.fold_in(jax.random.key(0), 0), (4, 16)), 0.7)
    styles = model.styles(jnp.repeat(w[:, None], 8, axis=1))
    flat = join_styles(styles, model.style_layers)
    np.testing.assert_allclose(samples.first[:4], flat, rtol=1e-5, atol=1e-6)


def test_a_stopped_measurement_continues(channels, weights, clip, folder, monkeypatch):
    real, calls = measurement._Measure.__call__, []

    def stopping(self, own):
        calls.append(own)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, own)

    monkeypatch.setattr(measurement._Measure, "__call__", stopping)
    again = functools.partial(measurement.measure_channels, weights, clip, folder / "again")
    with pytest.raises(KeyboardInterrupt):
        again(**OPTIONS)
    assert not (folder / "again").exists()
    with pytest.raises(InputError, match="again.parts: holds parts of a call with other options"):
        again(**OPTIONS | {"num_images": 1})
    again(**OPTIONS)
    # The part that was done is not done again.
    assert not any(np.array_equal(calls[0], own) for own in calls[1:])
    a, b = (load_weights(folder / name).variables["fs3"] for name in ("channels", "again"))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="already exists"):
        again(**OPTIONS)


def same_weights(a, b):
    a, b = load_weights(a), load_weights(b)
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    assert a.metadata["extra"] == b.metadata["extra"]


def test_parts_join_to_what_one_process_measures(channels, weights, clip, folder, capsys):
    out = folder / "parts"
    measure = functools.partial(measurement.measure_channels, weights, clip, out)
    assert measure(**OPTIONS, shard=(1, 2)) is None
    assert not out.exists()
    told = []
    assert measure(**OPTIONS | {"report": told.append}, shard=(0, 2)) == out
    # Of its own part, and at the end those that both have.
    count = len(gd.load_channel_effects(out).fs3)
    last = told[-1].removeprefix(f"{out}: ").split()
    assert last[0] == last[2] and count / 3 < int(last[2]) < count
    same_weights(out, channels)
    assert not out.with_name("parts.parts").exists()
    # A process that comes late, and calls that are not of this one.
    assert measure(**OPTIONS, shard=(1, 2)) == out
    with pytest.raises(InputError, match="parts: already exists"):
        measure(**OPTIONS | {"num_images": 1}, shard=(1, 2))
    with pytest.raises(InputError, match="--force: several processes do not replace"):
        measure(**OPTIONS, shard=(1, 2), force=True)


def test_a_part_that_was_lost_is_done_by_one_process(channels, weights, clip, folder):
    measure = functools.partial(measurement.measure_channels, weights, clip, folder / "lost")
    measure(**OPTIONS, shard=(0, 2))
    told = []
    measure(**OPTIONS | {"report": told.append})
    assert len(told) < len(load_weights(channels).variables["fs3"]) / measurement.CHANNELS_PER_PART
    same_weights(folder / "lost", channels)


PROCESS = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from interestyle_jax.cli import main
from interestyle_jax.editing.styleclip import channel_parts
write, written = channel_parts.ChannelParts.write, [0]
def write_and_die(self, i, effects):
    written[0] += 1
    if written[0] == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, i, effects)
channel_parts.ChannelParts.write = write_and_die
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_two_processes_and_a_killed_one_write_what_one_does(channels, weights, clip, folder):
    out = folder / "processes"
    argv = ["directions", "global", f"--weights={weights}", f"--clip={clip.directory}"]
    argv += [f"--out={out}", "--num-images=2", "--num-samples=6", "--batch-size=4"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}

    def start(index, dies_at):
        command = [sys.executable, "-c", PROCESS, str(dies_at), *argv, f"--shard={index}/2"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, **pipes)

    both = [start(0, 2), start(1, 0)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [-signal.SIGKILL, 0], told
    assert f"{out}: part 1/2 is done, others are left" in told[1][0]
    assert not out.exists()
    both = [start(0, 0), start(1, 0)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    # The part that the killed process ended is not done again.
    printed = told[0][0] + told[1][0]
    assert f"{out}: 16 of " not in printed and f"wrote {out}" in printed
    same_weights(out, channels)
    assert not out.with_name("processes.parts").exists()


def test_a_text_moves_latents_by_command(channels, weights, model, clip, folder, tmp_path):
    w_plus = np.random.default_rng(0).normal(size=(1, 1, 8, 16)).astype(np.float32)
    np.savez(tmp_path / "latents.npz", names=["me"], w_plus=w_plus)
    common = ["edit", f"--weights={weights}", f"--latents={tmp_path / 'latents.npz'}"]
    options = [f"--clip={clip.directory}", f"--channels={channels}", "--strength=0,4"]
    text = ["--text=a face with a beard", "--num-channels=7"]
    assert main([*common, *options, *text, f"--out={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (edit,) = report["edits"]
    assert (edit["text"], edit["neutral"], edit["channels"]) == (
        "a face with a beard",
        "a face",
        7,
    )
    with np.load(tmp_path / "out" / "me_styles.npz") as file:
        styles = file["styles"]
    effects = gd.load_channel_effects(channels)
    direction = gd.global_direction(
        effects,
        gd.text_direction(clip, "a face with a beard", "a face"),
        model.style_layers,
        name="x",
        num_channels=7,
    )
    np.testing.assert_allclose(styles[1] - styles[0], 4 * direction.array, atol=1e-5)
    assert np.count_nonzero(direction.array) == 7
    assert main([*common, "--beta=0.1", f"--out={tmp_path / 'no'}"]) == 2


def test_what_does_not_belong_together_is_refused(channels, weights, clip, folder, tmp_path):
    latents = tmp_path / "latents.npz"
    np.savez(latents, names=["me"], w_plus=np.zeros((1, 1, 8, 16), np.float32))
    other = drawn(NETWORK, "clip", folder / "other_clip", seed=1)

    def edit(text="a face with a beard", **options):
        options = {"clip": clip.directory, "channels": channels} | options
        edits = [text_edit(text, **options)]
        edit_files(weights, tmp_path / "out", edits=edits, latents=latents, strengths=[0, 1])

    for options, message in [
        ({"clip": other}, "channels: was measured with CLIP .*expected another --clip"),
        ({"text": "a face"}, "'a face' and 'a face' are the same to CLIP"),
        ({"text": ""}, "text: '' is empty"),
        ({"text": "a face with freckles"}, "was not trained with"),
        ({"beta": 2.0}, "beta: 2.0, expected from 0 to below 1"),
        ({"num_channels": 10_000}, "num_channels: 10000, expected 1 to"),
        ({"beta": 0.1, "num_channels": 2}, "expected one of them, not both"),
        ({"channels": clip.directory}, "no fs3, expected weights of styleclip_global"),
        ({"templates": tmp_path / "none.txt"}, "none.txt: not readable as text"),
    ]:
        with pytest.raises(InputError, match=message):
            edit(**options)
    assert not (tmp_path / "out").exists()


def test_channels_of_another_generator_are_refused():
    layers = Generator(resolution=16, channel_base=64, channel_max=8).style_layers
    stds = [np.ones(layer.channels) for layer in layers]
    rows = sum(layer.channels for layer in layers if not layer.is_rgb)
    gd.ChannelEffects(np.ones((rows, 4)), tuple(stds)).check(layers)
    gd.ChannelEffects(np.ones((layers[0].channels, 4)), tuple(stds)).check(layers)
    with pytest.raises(InputError, match=f"fs3 has {rows - 1} rows, expected one for each.*{rows}"):
        gd.ChannelEffects(np.ones((rows - 1, 4)), tuple(stds)).check(layers)
    with pytest.raises(InputError, match="statistics of S for layers of"):
        gd.ChannelEffects(np.ones((rows, 4)), tuple(stds[:-1])).check(layers)
    with pytest.raises(InputError, match="features have 5 numbers, fs3 was made with 4"):
        gd.relevance(np.ones((rows, 4)), np.ones(5))


def test_nothing_passes_a_beta_that_is_too_high():
    layers = Generator(resolution=16, channel_base=64, channel_max=8).style_layers
    stds = [np.ones(layer.channels) for layer in layers]
    relevances = np.full(sum(c.channels for c in layers if not c.is_rgb), 0.2)
    changes = gd.channel_changes(relevances, stds, layers, beta=0.5)
    assert not any(np.any(change) for change in changes)
    assert gd.default_beta(relevances) == pytest.approx(0.2)
    assert gd.default_beta(relevances[:20]) == pytest.approx(0.1)


def test_a_mapper_is_an_edit_of_its_generator(model, weights, folder, tmp_path):
    mapper = StyleMapper(num_styles=8, w_dim=16, levels=("coarse",))
    directory = drawn(mapper, "mapper", folder / "mapper", text="a smile")
    edit = load_mapper(directory, model.style_layers, w_dim=16)
    assert (edit.name, edit.default_range, edit.space) == ("a smile", (0.0, 0.18), "w_plus")
    w_plus = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 16)), jnp.float32)
    edited = edit(w_plus, 0.1)
    np.testing.assert_array_equal(edited[:, 4:], w_plus[:, 4:])
    assert not np.any(edited[:, :4] == w_plus[:, :4])
    np.testing.assert_array_equal(edit(w_plus, 0.0), w_plus)
    planned = mapper_edit(f"{directory}:0.1")(model)
    assert planned.strength == 0.1
    np.testing.assert_array_equal(planned.edit(w_plus, 0.1), edited)
    with pytest.raises(InputError, match=r"another generator, rows and width \(8, 16\).*\(4, 16\)"):
        load_mapper(directory, Generator(resolution=8).style_layers, w_dim=16)


@pytest.fixture(scope="module")
def embedder(folder):
    module = FaceEmbedder((1, 1), (4, 4, 8), dim=4, input_size=16)
    return ij.load(drawn(module, "embedder", folder / "embedder"))


def test_latents_move_towards_a_text_each_on_its_own(model, clip, embedder):
    w_plus = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)
    text, options = "a face with a beard", {"steps": 12, "id_weight": 0.005, "embedder": embedder}
    found = optimise_latents(model, clip, text, w_plus, **options)
    assert found.loss.shape == found.clip_loss.shape == (12, 2)
    assert np.all(found.loss[-1] < found.loss[0])
    image = model.synthesize(w_plus)
    # Nothing has moved before the first step.
    np.testing.assert_allclose(found.loss[0], found.clip_loss[0], atol=1e-6)
    assert np.all(np.abs(np.asarray(found.w_plus) - w_plus).max(axis=(1, 2)) > 0)
    alone = optimise_latents(model, clip, text, w_plus[1:], **options)
    np.testing.assert_allclose(alone.w_plus[0], found.w_plus[1], atol=2e-4)
    held = optimise_latents(model, clip, text, w_plus, steps=12, l2_weight=1e3)
    moved = [np.abs(np.asarray(x.w_plus) - w_plus).max() for x in (held, found)]
    assert moved[0] < moved[1]
    assert image.shape == (2, 32, 32, 3)


def test_an_optimisation_refuses(model, clip):
    w_plus = np.zeros((1, 8, 16), np.float32)
    for change, message in [
        ({"steps": 0}, "steps: 0, expected from 1"),
        ({"l2_weight": -1.0}, "l2_weight: -1.0, expected from 0"),
        ({"id_weight": 0.1}, "id_weight: needs weights of a face embedder"),
        ({"text": "a hat"}, "was not trained with"),
        ({"w_plus": w_plus[:, :4]}, r"w_plus: shape \(1, 4, 16\), expected \[B, 8, 16\]"),
    ]:
        given = {"text": "a face", "w_plus": w_plus} | change
        with pytest.raises(InputError, match=message):
            optimise_latents(model, clip, **given)


def test_sentences_for_a_text(clip, tmp_path):
    assert len(read_templates()) == 80
    (tmp_path / "t.txt").write_text("a picture of {}\n\n{} with a smile\n")
    templates = read_templates(tmp_path / "t.txt")
    found = clip.described("a person", templates=templates)
    both = clip.text_features(["a picture of a person", "a person with a smile"])
    mean = np.asarray(both).mean(axis=0)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-6)
    (tmp_path / "bad.txt").write_text("{} is here\nno place\n")
    with pytest.raises(InputError, match="bad.txt: line 2 has no {}"):
        read_templates(tmp_path / "bad.txt")
    with pytest.raises(InputError, match="templates: 'a face', expected sentences with one {}"):
        clip.described("a person", templates=["a face"])
    with pytest.raises(InputError, match="text: '' is empty"):
        clip.described("", templates=templates)
    with pytest.raises(InputError, match=r"images: shape \(16, 16, 3\), expected \[B, H, W, 3\]"):
        clip.image_features(np.zeros((16, 16, 3)))
