"""`interestyle invert` as a job: stops, parts, devices, what is compiled and what is sent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.inversion import inverter
from interestyle_jax.jobs import inversions
from interestyle_jax.jobs.inversions import invert_files
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.shard import Shard
from interestyle_jax.weights import load_weights, save_weights

COUNT, BATCH = 19, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small images of several sizes."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        shape = (32 + 8 * (i % 3), 32, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / f"p{i:02d}.png")
    return folder


@pytest.fixture
def invert(tiny_weights, folder):
    """Inverts the images in two iterations."""

    def run(out, **options):
        options = {"num_iterations": 2, "batch_size": BATCH} | options
        return invert_files(str(tiny_weights / "inverter"), folder, Path(out), **options)

    return run


@pytest.fixture
def one_device(monkeypatch):
    """As on a machine with one device."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def results(out):
    """{name: bytes} of the images and latents."""
    return {p.name: p.read_bytes() for p in Path(out).iterdir() if p.suffix in (".png", ".npz")}


def test_the_loop_compiles_once_and_sends_nothing_unasked(
    invert, tmp_path, one_device, monkeypatch
):
    before = inverter._invert._cache_size()

    def guarded(*args, **options):
        with jax.transfer_guard("disallow"):
            return run_job(*args, **options)

    monkeypatch.setattr(inversions, "run_job", guarded)
    report = invert(tmp_path / "out", num_iterations=1, batch_size=6)
    # Batches of 6, 6, 6 and 1 image.
    assert inverter._invert._cache_size() == before + 1
    assert report["num_images"] == COUNT and report["seconds_per_image"] > 0


def test_what_the_device_returns_is_small(invert, tmp_path, one_device, monkeypatch):
    seen = []
    fetch = jax.device_get

    def watched(tree):
        seen.append({(x.shape, str(x.dtype)) for x in jax.tree.leaves(tree)})
        return fetch(tree)

    monkeypatch.setattr(jax, "device_get", watched)
    invert(tmp_path / "out")
    expected = {((BATCH, 2, 8, 16), "float32"), ((BATCH, 32, 32, 3), "uint8"), ((BATCH,), "bool")}
    # Before the images the generator's parameters, for the fingerprint in latents.npz.
    assert len(seen[0]) > 4 and seen[1:4] == [expected] * 3


def test_eight_devices_and_two_parts_give_what_one_device_gives(invert, tmp_path, monkeypatch):
    assert len(jax.local_devices()) == 8
    report = invert(tmp_path / "eight")
    assert report["num_devices"] == 8
    assert invert(tmp_path / "parts", shard=Shard(0, 2))["status"] == "part done"
    assert invert(tmp_path / "parts", shard=Shard(1, 2))["status"] == "done"
    # A batch is the same images in the same rows: nothing depends on the parts.
    assert results(tmp_path / "parts") == results(tmp_path / "eight")

    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    assert invert(tmp_path / "one")["num_devices"] == 1
    with (
        np.load(tmp_path / "one/latents.npz") as one,
        np.load(tmp_path / "eight/latents.npz") as eight,
    ):
        assert one["names"].tolist() == eight["names"].tolist()
        np.testing.assert_allclose(one["w_plus"], eight["w_plus"], atol=1e-5)
    for path in (tmp_path / "one").glob("p*.png"):
        one, eight = (read_image(tmp_path / d / path.name).astype(int) for d in ("one", "eight"))
        assert np.abs(one - eight).max() <= 1


def test_by_default_eight_devices_give_the_bits_of_one(invert, tmp_path, monkeypatch):
    """Every device then computes as many rows as one device alone does."""
    assert invert(tmp_path / "eight", batch_size=None)["batch_size"] == 64
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    assert invert(tmp_path / "one", batch_size=None)["batch_size"] == 8
    assert results(tmp_path / "one") == results(tmp_path / "eight")


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from interestyle_jax.cli import main
from interestyle_jax.jobs import pipeline, run
run.COMMIT_SECONDS = 0
written = [0]
write = pipeline.write_whole
def write_and_die(path, content, **options):
    written[0] += 1
    if written[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content, **options)
pipeline.write_whole = write_and_die
sys.exit(main(sys.argv[3:]))
"""


def test_a_killed_command_goes_on_to_the_same_bits(
    invert, tiny_weights, folder, tmp_path, one_device
):
    invert(tmp_path / "whole", batch_size=2)
    argv = ["invert", f"--weights={tiny_weights / 'inverter'}", f"--input={folder}"]
    argv += [f"--out={tmp_path / 'out'}", "--steps=2", "--batch-size=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "1", "15", *argv], env=environment, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "out" / "report.json").exists()
    lines = (tmp_path / "out" / "progress.jsonl").read_text().splitlines()
    done = sum('"outputs"' in line for line in lines)
    assert 0 < done < COUNT
    assert main(argv) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["num_new"] == COUNT - done
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_other_options_and_weights_are_refused(
    invert, tiny_weights, folder, tmp_path, capfd, one_device
):
    argv = ["invert", f"--input={folder}", f"--out={tmp_path / 'out'}", "--batch-size=8"]
    own = f"--weights={tiny_weights / 'inverter'}"
    assert main([*argv, own, "--steps=2"]) == 0
    before = results(tmp_path / "out")
    capfd.readouterr()
    for other, message in [
        ([own, "--steps=1"], "was begun with steps 2, now it is 1; choose another --out"),
        ([f"--weights={tiny_weights / 'other'}", "--steps=2"], "was begun with weights '"),
        ([own, "--steps=2", f"--input={folder / 'p00.png'}"], "was begun with input '"),
        ([own, "--steps=2", "--dtype=bfloat16"], "was begun with dtype 'float32'"),
        ([own, "--steps=2", "--shard=2/2"], "--shard: part 2 of 2, expected from 0 to 1"),
        ([own, "--steps=2", "--max-skipped=1.5"], "--max-skipped: 1.5, expected a share"),
    ]:
        assert main([*argv, *other]) == 2
        assert message in capfd.readouterr().err
    assert results(tmp_path / "out") == before
    # Rows a call are no option of the results.
    assert main([*argv, own, "--steps=2", "--batch-size=3"]) == 0


def test_large_latents_lie_in_shards(invert, tmp_path, monkeypatch, one_device):
    from interestyle_jax.jobs import latents

    invert(tmp_path / "joined")
    monkeypatch.setattr(latents, "LARGEST_JOINED", 1000)
    monkeypatch.setattr(latents, "SHARD_BYTES", 10 * 2 * 8 * 16 * 4)
    report = invert(tmp_path / "split")
    assert report["latents"] == ["latents-00000-of-00002.npz", "latents-00001-of-00002.npz"]
    split = latents.LatentFile(tmp_path / "split")
    joined = latents.LatentFile(tmp_path / "joined")
    assert split.names == joined.names
    for name in joined.names:
        np.testing.assert_array_equal(split[name], joined[name])
    assert (tmp_path / "split/grid.png").read_bytes() == (tmp_path / "joined/grid.png").read_bytes()
    monkeypatch.setattr(inversions.InversionJob, "finish", lambda *a: pytest.fail("again"))
    assert invert(tmp_path / "split")["num_new"] == 0


@pytest.mark.parametrize("part", ["encoder", "generator"])
def test_inversions_that_are_not_finite_are_skipped(tiny_weights, folder, tmp_path, part):
    weights = load_weights(tiny_weights / "inverter")
    kernels = weights.variables[part]["params"]
    key = next(iter(jax.tree_util.tree_leaves_with_path(kernels)))[0]
    broken = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full_like(x, np.nan) if path == key else x, kernels
    )
    variables = weights.variables | {part: weights.variables[part] | {"params": broken}}
    architectures = weights.metadata["architectures"]
    facts = {"family": "interestyle", "architectures": architectures, "licence": "none"}
    save_weights(tmp_path / "weights", variables, **facts)
    with pytest.raises(InputError, match="its inversion by these weights is not finite"):
        invert_files(str(tmp_path / "weights"), folder, tmp_path / "out", num_iterations=1)
    assert not (tmp_path / "out").exists()
