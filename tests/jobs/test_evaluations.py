"""`interestyle evaluate` as a job: stops, parts, devices, what is compiled and what is sent."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.fid import FewImagesWarning, kid
from interestyle_jax.evaluation.frechet import feature_frechet_distance
from interestyle_jax.evaluation.identity import Identity
from interestyle_jax.jobs import evaluation_job, evaluations
from interestyle_jax.jobs.evaluations import evaluate
from interestyle_jax.jobs.feature_sets import FeatureSets, from_text
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.samples import Samples
from interestyle_jax.jobs.shard import Shard
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.five_point_alignment import REFERENCE
from interestyle_jax.weights import load_weights, save_weights

COUNT, BATCH, SIZE = 19, 8, 32


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "avatars"
    sizes = {"train": 1, "validation": 1, "test": COUNT}
    return write_avatars(directory, sizes=sizes, size=SIZE, seed=3, workers=0)


@pytest.fixture(scope="module")
def measure(tiny_weights, avatars):
    """Measures two encoders in two iterations."""

    def run(out, **options):
        options = {"num_iterations": 2, "batch_size": BATCH, "data": avatars} | options
        names = options.pop("weights", ("inverter", "other"))
        return evaluate([tiny_weights / name for name in names], out=out, **options)

    return run


@pytest.fixture(scope="module")
def whole(measure, tmp_path_factory):
    """An uninterrupted run of one process on eight devices: its metrics and folder."""
    assert len(jax.local_devices()) == 8
    out = tmp_path_factory.mktemp("whole") / "out"
    return measure(out), out


@pytest.fixture
def one_device(monkeypatch):
    """As on a machine with one device."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes longer than measuring images this small."""
    monkeypatch.setattr(evaluation_job, "draw_figures", lambda measurements, folder: None)


def without_times(metrics):
    encoders = metrics["encoders"].items()
    return metrics | {"encoders": {n: {**e, "seconds_per_image": None} for n, e in encoders}}


def results(out):
    """The table without its times, and {name: bytes} of the figures."""
    table = [line.split("|") for line in (out / "table.md").read_text().splitlines()]
    column = next(row.index(" s / image ") for row in table if " s / image " in row)
    table = [[cell for i, cell in enumerate(row) if i != column] for row in table]
    return table, {path.name: path.read_bytes() for path in (out / "figures").iterdir()}


def lines(out):
    """What is noted of the images that are measured."""
    entries = [json.loads(x) for x in (out / "progress.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "outputs" in entry]


def test_two_parts_give_what_one_process_gives(measure, whole, tmp_path):
    metrics, out = whole
    assert metrics["num_images"] == COUNT
    assert measure(tmp_path / "parts", shard=Shard(1, 2))["status"] == "part done"
    assert not (tmp_path / "parts" / "metrics.json").exists()
    found = measure(tmp_path / "parts", shard=Shard(0, 2))
    assert without_times(found) == without_times(metrics)
    assert results(tmp_path / "parts") == results(out)
    times = [e["seconds_per_image"] for e in found["encoders"].values()]
    assert all(seconds > 0 for seconds in times)
    report = json.loads((tmp_path / "parts" / "report.json").read_text())
    assert report["num_new"] == 11 and report["num_devices"] == 8


@pytest.mark.slow
def test_eight_devices_and_a_stopped_one_give_what_one_device_gives(
    measure, whole, tiny_weights, avatars, tmp_path, one_device
):
    # As many rows a device.
    one = measure(tmp_path / "one", batch_size=1)
    assert without_times(one) == without_times(whole[0])
    assert results(tmp_path / "one") == results(whole[1])
    argv = ["evaluate", f"--data={avatars}", f"--out={tmp_path / 'out'}", "--steps=2"]
    argv += [f"--weights={tiny_weights / name}" for name in ("inverter", "other")]
    argv += ["--batch-size=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *argv], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(lines(tmp_path / "out")) == 8
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert main(argv) == 0
    assert [int(line["name"]) for line in lines(tmp_path / "out")] == list(range(COUNT))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert without_times(metrics) == without_times(one)
    assert results(tmp_path / "out") == results(tmp_path / "one")


KILLED = """
import os, signal, sys
from interestyle_jax.cli import main
from interestyle_jax.jobs import progress, run
run.COMMIT_SECONDS = 0
add = progress.Progress.add
def add_and_die(self, entries):
    entries = list(entries)
    if any(entry.get("name") == "8" for entry in entries):
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, entries)
progress.Progress.add = add_and_die
sys.exit(main(sys.argv[1:]))
"""


def test_a_second_encoder_and_a_second_call_compile_nothing(measure, whole, tmp_path, no_figures):
    compiled = []

    def listen(event, seconds, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(more)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x * 3)(2)
        assert len(compiled) == 1
        # Read anew: equal networks are one to the compiler, their weights are arguments.
        again = measure(tmp_path / "again", weights=["other", "inverter"])
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert without_times(again)["encoders"] == without_times(whole[0])["encoders"]


def test_the_weights_of_lpips_are_no_constants():
    from interestyle_jax.evaluation.measurement import measure
    from interestyle_jax.evaluation.metrics import load_distance

    image = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), np.float32)
    drawn = jax.ShapeDtypeStruct((1, 2, SIZE, SIZE, 3), np.float32)
    w_plus = jax.ShapeDtypeStruct((2, 2, 8, 16), np.float32)
    lpips = load_distance("lpips_alex")
    program = measure.lower(lpips, {"image": image}, w_plus, drawn, shape=(SIZE, SIZE)).as_text()
    # Below are the scales of images, and nothing that has a kernel's size.
    large = [line for line in program.splitlines() if "constant dense<" in line and "x64x" in line]
    assert large == [] and len(program) < 200_000
    assert len(jax.tree.leaves(lpips)) > 10


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """A tiny embedder of 112 pixels."""
    module = FaceEmbedder(units=(1, 1), widths=(4, 4, 8), input_size=112, dim=8)
    architecture = registry.describe(module)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda spec: rng.normal(1, 0.1, spec.shape).astype(np.float32),
        registry.variable_shapes(architecture),
    )
    folder = tmp_path_factory.mktemp("embedder") / "weights"
    facts = {"family": "arcface", "architectures": {"embedder": architecture}, "licence": "none"}
    return save_weights(folder, {"embedder": variables}, **facts)


def detect(image):
    """A face in most images."""
    assert image.dtype == np.uint8
    if image[8].sum() % 4 == 0:
        return []
    return [Face(np.array([0, 0, 111, 111]), 0.9, REFERENCE * SIZE / 112)]


def test_nothing_is_sent_unasked_and_faces_are_embedded_on_all_devices(
    measure, embedder, tmp_path, no_figures, monkeypatch
):
    embedded = []

    def identity(*args, mesh):
        embed = ij.load(embedder, mesh=mesh).embed

        def watched(faces):
            embedded.append(embed(faces))
            return embedded[-1]

        return Identity(detect, watched)

    def guarded(*args, **options):
        # Of all threads, unlike the context of that name.
        jax.config.update("jax_transfer_guard", "disallow")
        try:
            return run_job(*args, **options)
        finally:
            jax.config.update("jax_transfer_guard", "allow")

    monkeypatch.setattr(evaluations, "load_identity", identity)
    monkeypatch.setattr(evaluations, "run_job", guarded)
    metrics = measure(tmp_path / "eight")
    assert len(embedded) == 6
    assert all(len(x.sharding.device_set) == 8 and x.shape == (2 * BATCH, 8) for x in embedded)
    similarity = {n: e["id_similarity"] for n, e in metrics["encoders"].items()}
    assert all(0 < value <= 1 for value in similarity.values())
    found = [line["encoders"][0]["id_similarity"] for line in lines(tmp_path / "eight")]
    assert None in found and similarity["inverter"] == pytest.approx(
        np.mean([value for value in found if value is not None])
    )


def test_other_options_and_commands_are_refused(
    measure, whole, tiny_weights, avatars, tmp_path, capfd
):
    metrics, out = whole
    argv = ["evaluate", f"--out={out}", f"--batch-size={BATCH}"]
    data, steps = f"--data={avatars}", "--steps=2"
    own = [f"--weights={tiny_weights / name}" for name in ("inverter", "other")]
    moved = tmp_path / "moved"
    shutil.copytree(avatars, moved)
    before = results(out)
    for other, message in [
        ([data, *own, "--steps=1"], "was begun with steps [2, 2], now it is [1, 1]"),
        ([data, own[0], steps], "was begun with weights ["),
        ([data, *own, steps, "--split=validation"], "was begun with split 'test'"),
        ([f"--data={moved}", *own, steps], "was begun with data '"),
        ([data, *own, steps, "--dtype=bfloat16"], "was begun with dtype 'float32'"),
        ([data, *own, steps, "--shard=2/2"], "--shard: part 2 of 2, expected from 0 to 1"),
        ([data, *own, steps, "--max-skipped=2"], "--max-skipped: 2, expected a share"),
    ]:
        assert main([*argv, *other]) == 2
        assert message in capfd.readouterr().err
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "image.png")
    assert main(["invert", own[0], f"--input={tmp_path / 'image.png'}", f"--out={out}"]) == 2
    assert "belongs to the command evaluate, not invert" in capfd.readouterr().err
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="metrics.json: exists already and is not of this command"):
        measure(tmp_path / "foreign")
    assert results(out) == before


def test_names_and_the_number_of_images_may_change(measure, whole, tmp_path, monkeypatch):
    metrics, out = whole
    shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr(
        evaluation_job.EvaluationJob, "compute", lambda *args: pytest.fail("measured again")
    )
    renamed = measure(tmp_path / "out", names=["a", "b"])
    assert list(renamed["encoders"]) == ["a", "b"]
    assert renamed["encoders"]["a"] == metrics["encoders"]["inverter"]
    figures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"grid_a.png", "leakage_b.png"} < figures and "grid_other.png" not in figures
    assert measure(tmp_path / "out", names=["a", "b"], num_samples=9)["num_images"] == 9
    monkeypatch.setattr(evaluation_job.EvaluationJob, "finish", lambda *a: pytest.fail("again"))
    measure(tmp_path / "out", names=["a", "b"], num_samples=9)


def test_damage_of_a_data_set_is_an_error_unless_it_may_be_skipped(
    measure, tmp_path, no_figures, monkeypatch
):
    read = Samples.read

    def damaged(self, item, shapes):
        if item.index == 3:
            raise InputError("example 3 is damaged or unreadable")
        return read(self, item, shapes)

    monkeypatch.setattr(Samples, "read", damaged)
    with pytest.raises(InputError, match="1 of 19 images cannot be used.*example 3 is damaged"):
        measure(tmp_path / "out")
    metrics = measure(tmp_path / "out", max_skipped=0.1)
    assert metrics["num_images"] == COUNT - 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["num_skipped"] == 1


def test_images_of_a_folder_are_skipped_within_the_budget(measure, tmp_path, no_figures):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"no image")
    options = {"data": folder, "weights": ["inverter"]}
    with pytest.raises(InputError, match="1 of 4 images cannot be used.*2.png: is not an image"):
        measure(tmp_path / "out", **options)
    metrics = measure(tmp_path / "out", max_skipped=0.3, **options)
    assert metrics["num_images"] == 3 and metrics["encoders"]["inverter"]["whole"]["l2"] > 0


def test_inversions_that_are_not_finite_are_refused(measure, tiny_weights, tmp_path):
    weights = load_weights(tiny_weights / "inverter")
    kernels = weights.variables["generator"]["params"]
    key = next(iter(jax.tree_util.tree_leaves_with_path(kernels)))[0]
    broken = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full_like(x, np.nan) if path == key else x, kernels
    )
    variables = weights.variables | {
        "generator": weights.variables["generator"] | {"params": broken}
    }
    facts = {"family": "interestyle", "licence": "none"}
    save_weights(
        tmp_path / "weights", variables, architectures=weights.metadata["architectures"], **facts
    )
    with pytest.raises(InputError, match="its inversion by .*weights is not finite"):
        measure(tmp_path / "out", weights=[tmp_path / "weights"])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    module = registry.build(
        {
            "type": "CLIP",
            "embed_dim": 4,
            "image_size": 16,
            "patch_size": 8,
            "vision_layers": 1,
            "vision_width": 64,
            "vision_heads": 1,
            "vision_mlp": 8,
            "text_layers": 1,
            "text_width": 64,
            "text_heads": 1,
            "text_mlp": 8,
            "context_length": 5,
            "token_ids": [0, 1, 2],
        }  # fmt: skip
    )
    variables = jax.jit(lambda key: registry.init(key, module))(jax.random.key(0))
    return save_weights(
        tmp_path_factory.mktemp("clip") / "clip",
        {"clip": variables},
        family="clip",
        architectures={"clip": registry.describe(module)},
        licence="none",
    )


@pytest.mark.slow
def test_feature_distances_and_regions_join_over_parts(
    measure, tiny_clip, tmp_path, no_figures, monkeypatch
):
    monkeypatch.setattr(evaluations, "load_parser", lambda name: lambda image: image[..., 0] > 127)
    options = {"fid_weights": tiny_clip, "fid_mode": "clip", "parser": "red"}
    options |= {"edits": ["channel:2,1:30"]}
    metrics = measure(tmp_path / "whole", **options)
    found = metrics["encoders"]["inverter"]
    edited = found["edit_fid"]
    assert edited["edits"] == ["channel 2,1:+30"] and edited["num_reference"] == COUNT
    assert edited["mode"] == "clip" and edited["fid"] != found["fid"]["fid"]
    assert found["fid"]["mode"] == "clip" and found["fid"]["num_reference"] == COUNT
    noted = [line["features"] for line in lines(tmp_path / "whole")]
    sets = [from_text(x["images"][0] for x in noted), from_text(x["inversions"][0] for x in noted)]
    want = feature_frechet_distance(*sets)
    assert want > 0 and found["fid"]["fid"] == pytest.approx(want, rel=1e-6)
    assert found["fid"]["kid_x1000"] == pytest.approx(1000 * kid(*sets)[0])
    assert 0 < found["boundary_iou"] < 1
    shares = [x["encoders"][0]["boundary_iou"] for x in lines(tmp_path / "whole")]
    assert found["boundary_iou"] == pytest.approx(np.mean([x for x in shares if x is not None]))
    table = (tmp_path / "whole" / "table.md").read_text()
    assert "| FID (clip) | KID x 1000 (clip) | FID of edits (clip) |" in table

    statistics = tmp_path / "whole" / "fid_statistics.npz"
    measure(tmp_path / "parts", shard=Shard(1, 2), **options)
    parts = measure(tmp_path / "parts", shard=Shard(0, 2), **options)
    assert without_times(parts) == without_times(metrics)
    options |= {"fid_statistics": statistics, "edit_statistics": statistics, "num_samples": 8}
    again = measure(tmp_path / "again", **options)["encoders"]["inverter"]
    assert again["fid"]["num_reference"] == again["edit_fid"]["num_reference"] == COUNT
    with pytest.raises(InputError, match="statistics of mode clip, expected clean"):
        FeatureSets("clean", tiny_clip, statistics=statistics)
    with pytest.raises(InputError, match="expected --fid-weights=DIR with them"):
        measure(tmp_path / "bad", fid_statistics=statistics)
    with pytest.raises(InputError, match="--edit-statistics: expected an --edit"):
        measure(tmp_path / "bad", **options | {"edits": []})


@pytest.mark.slow
def test_boundaries_are_drawn_and_lpips_features_compared(measure, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "load_parser", lambda name: lambda image: image[..., 0] > 127)
    options = {"fid_mode": "lpips", "parser": "red", "weights": ["inverter"]}
    with pytest.warns(FewImagesWarning, match="19 images for a covariance of 256 features"):
        metrics = measure(tmp_path / "out", **options)
    assert metrics["encoders"]["inverter"]["fid"]["mode"] == "lpips"
    assert "| FID (lpips) |" in (tmp_path / "out" / "table.md").read_text()
    with Image.open(tmp_path / "out" / "figures" / "boundary_inverter.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    # Three columns of 128 pixels and labels, eight rows; red and yellow are there.
    assert pixels.shape[0] > 8 * 128 and pixels.shape[1] > 3 * 128
    for colour in ((255, 26, 26), (255, 255, 0)):
        assert (pixels == colour).all(-1).sum() > 100
