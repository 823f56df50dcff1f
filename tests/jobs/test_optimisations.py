"""`interestyle invert --method` as a job: its files, starts, masks, generators of images' own."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.inversion import generator_differences as differences
from interestyle_jax.inversion.optimisation import recipes, steps
from interestyle_jax.inversion.optimisation.recipes import Phase, Recipe, Terms
from interestyle_jax.jobs import optimisations
from interestyle_jax.jobs.edits import edit_files
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.mixes import mix_files
from interestyle_jax.jobs.optimisations import optimise_files
from interestyle_jax.weights import load_weights

NAMES = ("a", "b", "c")
PIXEL = Terms(pixel=1.0)
TINY = Recipe(
    "tiny",
    "made for this test",
    (
        Phase(("w_plus", "noise"), 3, 0.05, PIXEL),
        Phase(("generator",), 2, 3e-3, PIXEL),
    ),
    batch_size=2,
)


@pytest.fixture(scope="module", autouse=True)
def preset():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "PRESETS", {**recipes.PRESETS, "tiny": TINY})
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and masks; the right half of "b" is another one's in "changed"."""
    folder = tmp_path_factory.mktemp("optimisations")
    random = np.random.default_rng(0)
    for kind in ("images", "changed", "masks"):
        (folder / kind).mkdir()
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    for name in NAMES:
        image = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        image[:, 16:] = 0
        Image.fromarray(image).save(folder / "changed" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return str(tiny_weights / "generator")


@pytest.fixture(scope="module")
def whole(folder, weights):
    """All three inverted, in float32 differences."""
    out = folder / "whole"
    optimise_files(weights, folder / "images", out, method="tiny", tuned_dtype="float32")
    return out


def results(out):
    """{name: bytes} of what images leave."""
    endings = (".png", ".npz", ".csv", ".safetensors")
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.suffix in endings}


def test_the_command_writes_what_encoders_do_and_losses(folder, weights, whole, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [f"--weights={weights}", f"--input={folder / 'images'}", f"--out={out}"]
    assert main(["invert", *argv, "--method=tiny", "--tuned-dtype=float32"]) == 0
    assert "3 generator differences of" in capsys.readouterr().err
    assert results(out) == results(whole)
    report = json.loads((out / "report.json").read_text())
    assert report["method"] == "tiny" and report["noise_optimised"] and report["generator_tuned"]
    assert LatentFile(out).shape == (3, 1, 8, 16)
    lines = (out / "losses/b.csv").read_text().splitlines()
    assert lines[0] == "step,phase,loss,pixel" and len(lines) == 6
    losses = [float(line.split(",")[2]) for line in lines[1:]]
    assert losses[2] < losses[0] and losses[4] < losses[3] < losses[0]
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "0", "0", "1", "1"]


def test_a_stopped_job_goes_on_to_the_same_bits(folder, weights, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for path in (out / "c.png", out / "tuned/a.safetensors", out / "grid.png"):
        path.unlink()
    before = (out / "b.png").stat().st_mtime_ns
    report = optimise_files(weights, folder / "images", out, method="tiny", tuned_dtype="float32")
    assert report["num_new"] == 2 and (out / "b.png").stat().st_mtime_ns == before
    assert results(out) == results(whole)


def test_masks_limit_what_is_seen(folder, weights, tmp_path):
    masked = [
        optimise_files(
            weights, folder / kind, tmp_path / kind, method="tiny", interest=str(folder / "masks")
        )
        for kind in ("images", "changed")
    ]
    assert masked[0]["interest"] == [str(folder / "masks")]
    images, changed = (LatentFile(tmp_path / kind) for kind in ("images", "changed"))
    for name in NAMES:
        np.testing.assert_array_equal(images[name], changed[name])


def test_latents_of_an_invert_are_a_start(folder, weights, whole, tiny_weights, tmp_path):
    options = {"method": "tiny", "num_steps": 1, "learning_rate": 1e-9}
    optimise_files(weights, folder / "images", tmp_path / "on", start=whole, **options)
    on, before = LatentFile(tmp_path / "on"), LatentFile(whole)
    for name in NAMES:
        np.testing.assert_array_equal(on[name], before[name])
    other = str(tiny_weights / "other")
    # No option takes them all the same.
    with pytest.raises(InputError, match="was made with generator .* hold [0-9a-f]{16}$"):
        optimise_files(other, folder / "images", tmp_path / "other", start=whole, **options)


def test_a_start_that_is_not_finite_skips_its_image(folder, weights, whole, tmp_path):
    latents = dict(np.load(whole / "latents.npz"))
    latents["w_plus"][1, -1, 0, 0] = np.nan
    np.savez(tmp_path / "latents.npz", **latents)
    out, start = tmp_path / "out", tmp_path / "latents.npz"
    options = {"method": "tiny", "num_steps": 1, "max_skipped": 0.5}
    report = optimise_files(weights, folder / "images", out, start=start, **options)
    (reason,) = report["skipped"].values()
    assert reason.endswith("its latent is not finite")
    assert LatentFile(out).names == ["a", "c"]


def test_edits_are_drawn_by_each_images_own_generator(weights, whole, tmp_path):
    direction = tmp_path / "up.npy"
    np.save(direction, np.ones(16, np.float32))
    options = {"edits": [str(direction)], "latents": whole, "strengths": (0.0,)}
    edit_files(weights, tmp_path / "own", tuned=whole, **options)
    edit_files(weights, tmp_path / "shared", **options)
    for name in NAMES:
        drawn = read_image(whole / f"{name}.png").astype(int)
        own = read_image(tmp_path / "own" / f"{name}_0.png").astype(int)
        shared = read_image(tmp_path / "shared" / f"{name}_0.png").astype(int)
        assert np.abs(own - drawn).max() <= 1
        assert np.abs(shared - drawn).max() > 1
    with pytest.raises(InputError, match="has no a.safetensors"):
        edit_files(weights, tmp_path / "none", tuned=tmp_path / "own", **options)


def test_mixes_mix_the_generators_too(weights, whole, tmp_path):
    options = {"latents": whole, "tuned": whole, "shares": (0.0, 1.0)}
    mix_files(weights, tmp_path / "all", styles="0-7", **options)
    for name, style in (("a", "b"), ("c", "a")):
        mixed = [read_image(tmp_path / f"all/{name}_{style}_{t}.png").astype(int) for t in (0, 1)]
        for image, of in zip(mixed, (name, style), strict=True):
            # Noise maps go with their layers as well.
            assert np.abs(image - read_image(whole / f"{of}.png").astype(int)).max() <= 1


def test_float16_halves_the_files_and_keeps_the_differences(folder, weights, whole, tmp_path):
    optimise_files(weights, folder / "images", tmp_path / "half", method="tiny")
    variables = load_weights(weights).variables["generator"]
    file = whole / "tuned/a.safetensors"
    size = differences.num_bytes(variables, params=True, noise=True, dtype="float32")
    assert abs(file.stat().st_size - size) < 0.05 * size
    generator = LatentFile(whole).generator
    half, single = (
        differences.read_difference(path, variables, generator=generator)
        for path in (tmp_path / "half/tuned/a.safetensors", file)
    )
    assert half.keys() == single.keys() and not any("mapping" in path for path in half)
    for path, array in half.items():
        assert array.dtype == np.float16
        np.testing.assert_allclose(array, single[path], rtol=1e-3, atol=1e-7)
    with pytest.raises(InputError, match="was made with generator"):
        differences.read_difference(file, variables, generator="0" * 16)
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-7])
    with pytest.raises(InputError, match="no readable generator difference"):
        differences.read_difference(tmp_path / "cut.safetensors", variables, generator=generator)


def test_an_image_that_is_not_finite_is_skipped_and_the_others_are_done(
    folder, weights, whole, tmp_path, monkeypatch
):
    load = optimisations.OptimisationJob.load

    def broken(job, item):
        loaded = load(job, item)
        if item.name == "a":
            loaded.image.image[0, 0, 0] = np.nan
        return loaded

    monkeypatch.setattr(optimisations.OptimisationJob, "load", broken)
    report = optimise_files(
        weights, folder / "images", tmp_path, method="tiny", tuned_dtype="float32", max_skipped=0.5
    )
    (reason,) = report["skipped"].values()
    assert "a.png: stopped after 0 steps" in reason
    assert (tmp_path / "b.png").read_bytes() == (whole / "b.png").read_bytes()


def test_what_the_command_refuses(folder, weights, tmp_path, monkeypatch, capsys):
    argv = ["invert", f"--weights={weights}", f"--input={folder / 'images'}"]
    argv += [f"--out={tmp_path / 'out'}"]

    def refused(*options):
        assert main([*argv, *options]) == 2
        return capsys.readouterr().err

    assert "--num-steps: needs --method" in refused("--num-steps=3")
    assert "expected one of projector-w" in refused("--method=sgd")
    assert "lpips_vgg" in refused("--method=projector-w")
    assert "--num-steps" in refused("--method=tiny", "--steps=2")
    assert "dataset" in refused("--method=tiny", "--interest=dataset")
    assert "folder or one of" in refused("--method=tiny", "--interest=nothing")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    assert "GB are free; expected more room" in refused("--method=tiny")
    assert not (tmp_path / "out").exists()


def test_an_empty_mask_skips_its_image(folder, weights, tmp_path):
    shutil.copytree(folder / "masks", tmp_path / "masks")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "masks/b.png")
    report = optimise_files(
        weights,
        folder / "images",
        tmp_path / "out",
        method="tiny",
        interest=str(tmp_path / "masks"),
        max_skipped=0.5,
    )
    (reason,) = report["skipped"].values()
    assert reason.endswith("its interest mask is empty")
    assert report["num_skipped"] == 1 and report["num_images"] == 2


def test_other_numbers_compile_nothing_new(folder, weights, whole, tmp_path):
    before = steps.run_steps._cache_size()
    changed = dataclasses.replace(TINY, phases=TINY.phases[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "PRESETS", {"tiny": changed})
        options = {"method": "tiny", "num_steps": 4, "learning_rate": 0.02}
        optimise_files(weights, folder / "images", tmp_path, **options)
    assert steps.run_steps._cache_size() == before
