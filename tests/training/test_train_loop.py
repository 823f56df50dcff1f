"""The train loop: killed and resumed, on one device and on eight, and its bad input."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.exit_status import run_command
from interestyle_jax.parallel import processes, sharding
from interestyle_jax.training import encoder_networks, train_loop
from interestyle_jax.training.train_loop import train
from interestyle_jax.training.trainer import Trainer, make_task

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    """32-pixel avatars."""
    out = tmp_path_factory.mktemp("data") / "avatars"
    write_avatars(out, sizes={"train": 16, "validation": 8, "test": 2}, size=32, workers=1)
    return out


def short_run(config, avatars):
    """Six steps with a checkpoint after every second one."""
    config.data.dir = str(avatars)
    config.batch_size = 8
    config.num_steps = STEPS
    config.checkpoint_every = 2
    config.image_every = 4
    config.log_every = 1
    config.validation_samples = 8
    return config


@pytest.fixture
def config(avatars, tiny_config):
    return short_run(tiny_config(), avatars)


DRIVER = """
import json, os, signal, sys
import ml_collections
from interestyle_jax.training import checkpoints, run_directory, train_loop
config = ml_collections.ConfigDict(json.loads(open(sys.argv[1]).read()))
when, step = sys.argv[3], int(sys.argv[4])
if when == "saving":
    save = checkpoints.Checkpoints.save
    def save_and_die(self, at, *args, **kwargs):
        save(self, at, *args, **kwargs)
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)
    checkpoints.Checkpoints.save = save_and_die
if when == "stepping":
    from interestyle_jax.parallel import sharding
    from interestyle_jax.parallel import processes
    put = sharding.put_batch
    seen = [0]
    def put_and_die(*args):
        seen[0] += 1
        if seen[0] > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(*args)
    sharding.put_batch = put_and_die
if when == "term":
    log = run_directory.RunDirectory.log
    def log_and_ask(self, at, *args):
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)
        log(self, at, *args)
    run_directory.RunDirectory.log = log_and_ask
report = train_loop.train(config, sys.argv[2], command=["test"])
print(report["status"])
"""


@pytest.fixture(scope="module")
def compile_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("xla")


def run(config, workdir, cache, when="never", step=0):
    """A training in its own process, on one device; returns (exit status, stdout, stderr)."""
    path = workdir.parent / f"{workdir.name}.json"
    path.write_text(config.to_json())
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(path), str(workdir), when, str(step)],
        capture_output=True,
        text=True,
        env=environment,
    )
    return done.returncode, done.stdout, done.stderr


def final_state(workdir):
    """Every array of the last checkpoint, by path."""
    import orbax.checkpoint as ocp

    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    path = workdir.resolve() / "checkpoints" / str(steps[-1]) / "state"
    checkpointer = ocp.PyTreeCheckpointer()
    shapes = checkpointer.metadata(path).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return steps[-1], {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}


@pytest.fixture(scope="module")
def uninterrupted(avatars, tiny_config, tmp_path_factory, compile_cache):
    """A run from start to end, and its config."""
    config = short_run(tiny_config(), avatars)
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    status, _, error = run(config, workdir, compile_cache)
    assert status == 0, error
    return config, workdir


@pytest.mark.parametrize(
    ("when", "step"), [pytest.param("saving", 4, marks=pytest.mark.slow), ("stepping", 7)]
)
def test_killed_run_ends_with_the_same_bits(uninterrupted, compile_cache, tmp_path, when, step):
    settings, whole = uninterrupted
    workdir = tmp_path / "killed"
    status, _, _ = run(settings, workdir, compile_cache, when, step)
    assert status == -signal.SIGKILL
    assert not (workdir / "report.json").exists()

    status, out, error = run(settings, workdir, compile_cache)
    assert status == 0, error
    assert "resuming from step" in error
    step_whole, want = final_state(whole)
    step_again, got = final_state(workdir)
    assert step_whole == step_again == STEPS
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    logged = [json.loads(x)["step"] for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(logged)) == list(range(1, STEPS + 1))
    assert logged == sorted(logged)


def test_sigterm_saves_and_leaves_with_status_0(uninterrupted, compile_cache, tmp_path):
    settings, whole = uninterrupted
    workdir = tmp_path / "asked"
    status, out, error = run(settings, workdir, compile_cache, "term", 3)
    assert status == 0, error
    assert out.strip().endswith("preempted")
    step, _ = final_state(workdir)
    assert step < STEPS
    assert json.loads((workdir / "report.json").read_text())["status"] == "preempted"
    run(settings, workdir, compile_cache)
    want, got = final_state(whole)[1], final_state(workdir)[1]
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def test_run_directory_says_everything(uninterrupted):
    settings, whole = uninterrupted
    report = json.loads((whole / "report.json").read_text())
    assert report["status"] == "completed"
    assert report["last_step"] == STEPS
    assert report["best_step"] in (2, 4, 6)
    assert report["images_per_second"] > 0
    assert {"jax", "python", "orbax-checkpoint"} <= report["versions"].keys()
    assert report["command"] == ["test"]
    assert json.loads((whole / "config.json").read_text())["num_steps"] == STEPS
    assert sorted(p.name for p in (whole / "images").iterdir()) == [
        "step_00000004.png",
        "step_00000006.png",
    ]
    lines = [json.loads(x) for x in (whole / "metrics.jsonl").read_text().splitlines()]
    validation = {x["step"]: x["validation_loss"] for x in lines if "validation_loss" in x}
    assert report["best_loss"] == min(validation.values())
    metadata = json.loads((whole / "weights" / "metadata.json").read_text())
    assert metadata["extra"]["training"]["step"] == report["best_step"]


def test_lost_weights_are_written_again_from_the_best_checkpoint(uninterrupted, tmp_path):
    settings, whole = uninterrupted
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "weights")
    report = train(settings, again, command=["test"])
    assert (again / "weights" / "metadata.json").exists() == (report["best_step"] == STEPS)
    # A finished run's report keeps its figures.
    assert report == json.loads((whole / "report.json").read_text())
    assert report == json.loads((again / "report.json").read_text())


def test_weights_that_cannot_be_stored_cost_no_training(config, tmp_path, monkeypatch):
    config.num_steps = 2

    def refuse(self, loss):
        raise InputError("var holds values above 65504, the largest float16")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "export", refuse)
        with pytest.raises(InputError, match="largest float16"):
            train(config, tmp_path / "run", command=[])
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
    assert not (tmp_path / "run" / "weights").exists()
    report = train(config, tmp_path / "run", command=[])
    assert report["status"] == "completed" and report["last_step"] == 2
    assert (tmp_path / "run" / "weights" / "metadata.json").exists()


def test_one_device_and_eight_take_the_same_step(config):
    """Data parallel, and data x fsdp: loss, gradient norm, BatchNorm statistics."""
    task = make_task(config)
    # With key 0 an activation lies within rounding of a PReLU's kink, and takes the other slope.
    key = jax.random.key(1)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "interest_mask": np.repeat(
            rng.integers(0, 2, (8, 8, 8, 1), np.uint8) * 255, 4, axis=1
        ).repeat(4, axis=2),
    }
    initial = jax.device_get(jax.jit(task.init)(key, {}))
    results = {}
    for name, devices, fsdp in [("one", 1, 1), ("data", 8, 1), ("fsdp", 8, 4)]:
        mesh = sharding.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
        places = sharding.tree_sharding(mesh, initial, min_size=64)
        if fsdp > 1:
            assert any(not p.is_fully_replicated for p in jax.tree.leaves(places))
        whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
        step = jax.jit(
            task.train_step,
            in_shardings=(whole, places, whole, rows),
            out_shardings=(places, whole),
        )
        placed = sharding.put_batch(batch, rows)
        results[name] = jax.device_get(step(key, initial, task.frozen, placed))
    state, metrics = results["one"]
    for name in ("data", "fsdp"):
        other, other_metrics = results[name]
        for field in ("loss", "grad_norm"):
            np.testing.assert_allclose(other_metrics[field], metrics[field], rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            other.batch_stats,
            state.batch_stats,
        )


def grid_rows(config, workdir):
    """Rows of the image that a trainer draws before its first step."""
    trainer = Trainer(config, workdir, [])
    trainer.draw()
    trainer.close()
    trainer.checkpoints.close()
    with Image.open(workdir / "images" / "step_00000000.png") as image:
        return image.height / 32


@pytest.mark.parametrize("size", [4, 16])
def test_grid_has_eight_rows_whatever_the_batch(config, tmp_path, monkeypatch, size):
    monkeypatch.setattr(
        sharding,
        "make_mesh",
        functools.partial(sharding.make_mesh, devices=jax.devices()[:4]),
    )
    config.batch_size, config.validation_samples = size, 16
    # The split has eight images.
    assert grid_rows(config, tmp_path / "run") == 8


def test_not_finite_stops_naming_metric_and_step(config, tmp_path, monkeypatch):
    config.num_steps = 3
    config.checkpoint_every = 3
    trained = Trainer._compile

    def poisoned(self):
        trained(self)
        step = self.train_step

        def train_step(state, *rest):
            state, metrics = step(state, *rest)
            bad = jax.numpy.where(state.step == 2, jax.numpy.nan, metrics["l2"])
            return state, metrics | {"l2": bad}

        self.train_step = train_step

    monkeypatch.setattr(Trainer, "_compile", poisoned)
    with pytest.raises(FloatingPointError, match="step 2: metric 'l2' is nan"):
        train(config, tmp_path / "run", command=[])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["status"] == "failed"
    assert "step 2" in report["error"]
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


@pytest.mark.parametrize("place", ["step", "last save"])
def test_full_disk_is_told_by_its_first_line(config, tmp_path, monkeypatch, capsys, place):
    """A full disk refuses the report too. The save in the background ends, and the bar's line."""
    ended, said = [], []

    def full(what):
        raise MachineError(f"{what}: No space left on device")

    def step(state, frozen, batch, phase):
        if place == "step":
            full("images/a.png")
        return state, {"loss": 0.5}

    def report(values):
        said.append((values["status"], values["error"]))
        full("report.json")

    trainer = SimpleNamespace(
        config=config,
        step=config.num_steps - 1,
        state=None,
        frozen=None,
        meta=None,
        train_step=step,
        next_batch=dict,
        save=dict,
        draw=lambda: None,
        export_if_missing=lambda: None,
        close=lambda: ended.append("trainer"),
        task=SimpleNamespace(phase=lambda step: (), has_validation_loss=True),
        run=SimpleNamespace(
            log=lambda *_: None,
            publish=lambda: None,
            report=report,
            finished_report=lambda: None,
        ),
        checkpoints=SimpleNamespace(
            notices=[],
            reached_preemption=lambda step: False,
            wait=lambda: full("checkpoints"),
            settle=lambda: ended.append("save"),
        ),
    )
    monkeypatch.setattr(train_loop, "Trainer", lambda *_: trainer)
    error = "images/a.png" if place == "step" else "checkpoints"
    work = functools.partial(train, config, tmp_path, command=[])
    assert run_command(work, program="interestyle") == 1
    assert ended == ["trainer", "save"] and said == [
        ("failed", f"{error}: No space left on device")
    ]
    shown = capsys.readouterr().err
    assert shown.endswith(f"\ninterestyle: error: {error}: No space left on device\n")


def test_bad_runs_are_refused_naming_the_field(config, tmp_path, uninterrupted):
    _, whole = uninterrupted
    config.optimizer.learning_rate = 0.5
    with pytest.raises(InputError, match="config.optimizer.learning_rate.*0.0001.*0.5"):
        train(config, whole, command=[])
    config.optimizer.learning_rate = 1e-4
    config.batch_size = 6
    with pytest.raises(InputError, match="config.batch_size: 6"):
        train(config, tmp_path / "a", command=[])
    config.batch_size = 8
    config.mesh.data = 3
    with pytest.raises(InputError, match="config.mesh: data=3"):
        train(config, tmp_path / "b", command=[])
    config.mesh.data = -1
    config.data.dir = ""
    with pytest.raises(InputError, match="config.data.dir"):
        train(config, tmp_path / "c", command=[])
    assert not (tmp_path / "c").exists()


def test_changed_weights_are_refused(config, tmp_path, uninterrupted, tiny_weights):
    _, whole = uninterrupted
    config.weights.generator = str(tiny_weights / "other")
    words = "config.weights.generator: .*other' is not what .* was trained with until step 6"
    with pytest.raises(InputError, match=words):
        train(config, whole, command=[])


def test_a_run_goes_on_on_another_machine(
    config, tmp_path, uninterrupted, tiny_weights, monkeypatch, capsys
):
    """Where G(w_avg) has other bits, the weights lie elsewhere, and a field is new."""
    _, whole = uninterrupted
    again, moved = tmp_path / "again", tmp_path / "moved"
    shutil.copytree(whole, again)
    shutil.copytree(tiny_weights / "generator", moved)
    begun = json.loads((again / "config.json").read_text())
    del begun["freeze_batch_norm_after"]
    (again / "config.json").write_text(json.dumps(begun))
    start, drawn = encoder_networks._start, []

    def other_bits(*arguments):
        w_0, image_0 = start(*arguments)
        drawn.append(image_0)
        return w_0, np.nextafter(np.asarray(image_0), np.float32(np.inf))

    monkeypatch.setattr(encoder_networks, "_start", other_bits)
    config.weights.generator = str(moved)
    config.num_steps = config.checkpoint_every = STEPS + 1
    config.freeze_batch_norm_after = 0.5
    report = train(config, again, command=[])
    assert (report["status"], report["last_step"]) == ("completed", STEPS + 1)
    assert len(drawn) == 1
    told = capsys.readouterr().err
    assert "resuming from step 6" in told
    assert "config.freeze_batch_norm_after" in told and "default 1.0, not with 0.5" in told
    assert json.loads((again / "config.json").read_text())["freeze_batch_norm_after"] == 1.0
    config.compute_dtype = "bfloat16"
    with pytest.raises(InputError, match="config.compute_dtype.*'float32', now it is 'bfloat16'"):
        train(config, again, command=[])


def test_config_for_another_generator_is_refused(config, tmp_path):
    config.encoder.num_styles = 18
    with pytest.raises(InputError, match="config.encoder.num_styles: 18, but the gen.* has 8"):
        train(config, tmp_path / "run", command=[])
    assert not (tmp_path / "run").exists()


def test_clocks_that_differ_are_told(uninterrupted, monkeypatch, capsys):
    settings, whole = uninterrupted
    monkeypatch.setattr(processes, "clock_skew", lambda: 100)
    train(settings, whole, command=["test"])
    assert "clocks of the processes differ by 100 s" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.data.dir", "config.weights", "batch_size"])
def test_process_that_reads_something_else_is_named(config, tmp_path, monkeypatch, name):
    def gather(value):
        host, fields = value
        other = {key: 1 if key.startswith(name) else read for key, read in fields.items()}
        return [value, ["b", other]]

    monkeypatch.setattr(processes, "gather", gather)
    with pytest.raises(InputError, match=rf"{name}\S* differs .* process 1 \(host b\) has 1; pro"):
        Trainer(config, tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_changed_data_set_is_refused(config, tmp_path, uninterrupted):
    _, whole = uninterrupted
    other = tmp_path / "other"
    write_avatars(
        other, sizes={"train": 16, "validation": 8, "test": 2}, size=32, workers=1, seed=1
    )
    config.data.dir = str(other)
    with pytest.raises(InputError, match="changed since the checkpoint of step 6"):
        train(config, whole, command=[])
