"""launch/gpu_node.sh: crashes, signals, shared GPUs, jobs, and two real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.avatar_builder import write_avatars
from tests.launch.stand_ins import CONFIG, CPU, GPU, JOB, LASTS, NEEDED, ROOT, TRAINING, refused


def gpu_node(machine, *arguments, **environment):
    environment = {"INTERESTYLE": "interestyle"} | environment
    return machine.run(GPU, *NEEDED[GPU], *CPU, *arguments, **environment)


def test_gpu_node_goes_on_after_crashes(machine):
    machine.stub("interestyle", TRAINING + "((n > 2)) || exit 139; echo finished")
    done = gpu_node(machine, "--config.batch_size=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["step of 1", "step of 2", "step of 3", "finished"]
    assert "ended with status 139; restart 2 of 3" in done.stderr
    expected = ["train", CONFIG, f"--workdir={machine.workdir}"]
    expected += ["--distributed=off", "--config.batch_size=4"]
    assert machine.calls("interestyle") == [expected] * 3
    log = (machine.workdir / "logs" / "process_0.log").read_text()
    assert log.count("--- ") == 3 and "step of 1\n" in log and "finished\n" in log


def test_gpu_node_gives_up_at_the_limit(machine):
    machine.stub("interestyle", "exit 1")
    done = gpu_node(machine, "--max-restarts=1")
    assert done.returncode == 1
    assert "error: the training ended with status 1, after 1 restarts" in done.stderr
    assert len(machine.calls("interestyle")) == 2


def test_gpu_node_does_not_try_bad_input_again(machine):
    machine.stub("interestyle", "echo 'interestyle: error: config.data.dir' >&2; exit 2")
    done = gpu_node(machine)
    assert done.returncode == 2
    assert len(machine.calls("interestyle")) == 1
    assert "config.data.dir" in done.stdout


def test_gpu_node_knows_bad_input_of_one_process(machine):
    machine.stub("interestyle", TRAINING + "((process)) && exit 134; sleep 0.6; exit 2")
    done = gpu_node(machine, "--processes=2")
    assert done.returncode == 2, done.stderr
    assert len(machine.calls("interestyle")) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gpu_node_passes_signals_on_and_does_not_restart(machine, number):
    machine.stub("interestyle", TRAINING + f"{LASTS}; exit 1")
    arguments = (*NEEDED[GPU], *CPU, "--processes=2")
    started = machine.start(GPU, *arguments, INTERESTYLE="interestyle")
    for i in range(2):
        machine.wait_for(machine.workdir / "logs" / f"process_{i}.log", "step")
    started.send_signal(number)
    out, error = started.communicate(timeout=30)
    assert started.returncode == 0, error
    assert "[0] saved" in out and "[1] saved" in out
    assert len(machine.calls("interestyle")) == 2


def test_gpu_node_ends_the_others_when_one_process_dies(machine):
    machine.stub(
        "interestyle",
        TRAINING + '((process == 0)) || exit 7; trap "" TERM; for i in {1..99}; do sleep 0.2; done',
    )
    begun = time.monotonic()
    done = gpu_node(machine, "--processes=2", "--grace=1", "--max-restarts=0")
    assert done.returncode == 7, done.stderr
    assert "1 of 2 processes did not end in 1 s: killed" in done.stderr
    assert time.monotonic() - begun < 10


def test_gpu_node_splits_the_gpus(machine):
    machine.stub("interestyle", TRAINING)
    machine.stub("nvidia-smi", r"printf 'GPU %d: H100\n' 0 1 2 3")
    done = gpu_node(
        machine, "--platform=cuda", "--processes=2", XLA_FLAGS="--xla_gpu_autotune_level=1"
    )
    assert done.returncode == 0, done.stderr
    flags = "--xla_gpu_autotune_level=1 --xla_gpu_enable_latency_hiding_scheduler=true"
    lines = sorted((machine.folder / "environment").read_text().splitlines())
    assert lines == [f"0,1|cuda|{flags}", f"2,3|cuda|{flags}"]
    calls = [dict(w[2:].split("=", 1) for w in c[1:]) for c in machine.calls("interestyle")]
    assert {c["num-processes"] for c in calls} == {"2"}
    assert {c["process-id"] for c in calls} == {"0", "1"}
    (coordinator,) = {c["coordinator"] for c in calls}
    assert re.fullmatch(r"127\.0\.0\.1:\d{5}", coordinator)

    only = {"CUDA_VISIBLE_DEVICES": "4,6,7"}
    done = gpu_node(machine, "--platform=cuda", "--processes=2", **only)
    refused(done, "2 processes cannot share 3 GPUs evenly")


JOB_PROCESS = """
echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES on $CUDA_VISIBLE_DEVICES" >>"$HOME/parts"
"""


def test_gpu_node_gives_each_process_of_a_job_its_gpus(machine):
    machine.stub("interestyle", JOB_PROCESS)
    machine.stub("nvidia-smi", r"printf 'GPU %d: H100\n' 0 1 2 3")
    options = ["--processes=2", "--min-free=0", "--", *JOB]
    done = machine.run(GPU, *options, INTERESTYLE="interestyle")
    assert done.returncode == 0, done.stderr
    expected = [word.replace("WORK", str(machine.workdir)) for word in JOB]
    assert machine.calls("interestyle") == [expected] * 2
    parts = machine.folder / "parts"
    assert sorted(parts.read_text().splitlines()) == ["0/2 on 0,1", "1/2 on 2,3"]
    # The command's own folder is left to it.
    assert not machine.workdir.exists()
    assert (machine.folder / "work.run" / "logs" / "process_1.log").exists()

    parts.unlink()
    some = {"INTERESTYLE": "interestyle", "CUDA_VISIBLE_DEVICES": "7,4,6,1"}
    assert machine.run(GPU, *options, **some).returncode == 0
    assert sorted(parts.read_text().splitlines()) == ["0/2 on 7,4", "1/2 on 6,1"]


def test_gpu_node_lets_the_other_processes_of_a_job_finish(machine):
    """Process 1 dies at first; process 0 works longer than those of a training were let."""
    machine.stub(
        "interestyle",
        '((n > 2)) && exit 0; ((JAX_PROCESS_ID == 0)) || exit 7; sleep 3; touch "$HOME/whole"',
    )
    options = [*CPU, "--processes=2", "--grace=1", "--", *JOB]
    done = machine.run(GPU, *options, INTERESTYLE="interestyle")
    assert done.returncode == 0, done.stderr
    assert (machine.folder / "whole").exists()
    assert "the invert ended with status 7; restart 1 of 3" in done.stderr
    assert len(machine.calls("interestyle")) == 4


def test_gpu_node_trains_behind_the_dashes_too(machine):
    machine.stub("interestyle", TRAINING)
    words = [*CPU, "--", "train", *NEEDED[GPU], "--config.seed=1"]
    assert machine.run(GPU, *words, INTERESTYLE="interestyle").returncode == 0
    assert gpu_node(machine, "--config.seed=1").returncode == 0
    first, second = machine.calls("interestyle")
    assert first == second and first[0] == "train"


@pytest.mark.slow
def test_gpu_node_inverts_with_two_processes(tiny_weights, tmp_path):
    """The command as typed: two processes of two CPU devices each, one folder."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        image.save(tmp_path / "images" / f"p{i}.png")
    command = tmp_path / "interestyle"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m interestyle_jax "$@"\n')
    command.chmod(0o755)
    job = ["invert", f"--weights={tiny_weights / 'inverter'}", f"--input={tmp_path / 'images'}"]
    job += [f"--out={tmp_path / 'out'}", "--steps=1", "--batch-size=2"]
    done = subprocess.run(
        ["bash", GPU, *CPU, "--processes=2", "--devices=2", "--max-restarts=0", "--", *job],
        env=os.environ | {"INTERESTYLE": str(command)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["num_images"], report["num_devices"]) == (9, 2)
    # Batches of two: 0, 2 and 4 are of the first process.
    assert {p.name: len(p.read_text().splitlines()) for p in tmp_path.glob("out/progress*")} == {
        "progress-00000-of-00002.jsonl": 2 + 5,
        "progress-00001-of-00002.jsonl": 2 + 4,
    }


TINY = """
from interestyle_jax.config.presets import encoder_config

def get_config():
    config = encoder_config("interestyle")
    config.data.dir = {data!r}
    config.weights.generator = {generator!r}
    config.weights.lpips = ""
    config.encoder = {{
        "type": "BackboneEncoder", "input_size": 32, "units": (1, 1), "widths": (4, 4, 8),
        "head_width": 8,
    }}
    config.method.num_iterations = 2
    config.method.filter_radii = (16.0,)
    config.loss = {{"l2": 1.0}}
    config.num_steps = config.checkpoint_every = config.validation_samples = 8
    config.log_every = 1
    return config
"""


@pytest.mark.slow
def test_gpu_node_trains_with_two_processes(tiny_weights, tmp_path):
    """The command as typed, with nothing in its place: two processes of two CPU devices each."""
    data = tmp_path / "data"
    write_avatars(data, sizes={"train": 16, "validation": 8}, size=32, workers=1)
    config = tmp_path / "tiny.py"
    config.write_text(TINY.format(data=str(data), generator=str(tiny_weights / "generator")))
    command = tmp_path / "interestyle"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m interestyle_jax "$@"\n')
    command.chmod(0o755)
    workdir = tmp_path / "run"
    done = subprocess.run(
        ["bash", GPU, f"--config={config}", f"--workdir={workdir}", *CPU]
        + ["--processes=2", "--devices=2", "--max-restarts=0", "--config.num_steps=2"],
        env=os.environ
        | {"INTERESTYLE": str(command), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[0] {workdir}: completed at step 2" in done.stdout
    report = json.loads((workdir / "report.json").read_text())
    assert (report["status"], report["devices"]) == ("completed", 4)
    assert (workdir / "weights" / "metadata.json").is_file()
    assert "--process-id=1" in (workdir / "logs" / "process_1.log").read_text()
    # The launch scripts and Kubernetes' pods read the status so.
    assert json.loads((workdir / "report.json").read_text())["status"] == "completed"
