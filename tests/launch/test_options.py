"""What all launch scripts have in common: options, refusals, `--dry-run`, XLA's flags."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.launch.stand_ins import (
    CONFIG,
    CPU,
    GKE,
    GPU,
    JOB,
    NEEDED,
    PLACES,
    ROOT,
    SLURM,
    TPU,
    refused,
    run_here,
)

SCRIPTS = ["quickstart.sh", "test.sh", "docs.sh", "gpu_node.sh", "tpu_pod.sh"]
SCRIPTS = [f"launch/{name}" for name in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_parses_and_helps(script):
    assert run_here("bash", "-n", script).returncode == 0
    done = run_here("bash", script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: bash {script}")


def test_launch_script_takes_a_shipped_config_by_name(tmp_path):
    options = (f"--workdir={tmp_path}", "--platform=cpu", "--dry-run")
    done = run_here("bash", "launch/gpu_node.sh", "--config=demo:smoke", *options)
    assert done.returncode == 0, done.stderr
    assert "--config=demo:smoke" in done.stdout


@pytest.mark.parametrize("script", NEEDED)
def test_help_names_every_option(machine, script):
    done = machine.run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    options = set(
        re.findall(r"^    (--[a-z-]+)(?=[=) ])", (ROOT / script).read_text(), re.MULTILINE)
    )
    assert {"--config", "--workdir", "--dry-run", "--help"} <= options
    assert not [o for o in options if o not in done.stdout]


@pytest.mark.parametrize(
    ("script", "change", "message"),
    [
        *((script, ["--die=here"], "unknown argument '--die=here'") for script in NEEDED),
        *((script, ["--config=none.py:smoke"], "none.py not found") for script in NEEDED),
        *((script, ["--max-restarts=two"], "--max-restarts: expected a") for script in NEEDED),
        (GPU, ["--processes=0"], "--processes: expected a whole number from 1, got '0'"),
        (GPU, ["--processes=3", "--gpus=8"], "3 processes cannot share 8 GPUs"),
        (GPU, ["--platform=tpu"], "--platform: expected cuda or cpu, got 'tpu'"),
        (TPU, ["--workdir=gs://"], "or a training's gs://BUCKET/FOLDER, got gs://"),
        (TPU, ["--workdir=runs/here"], "expected an absolute path on a shared disk"),
        (TPU, ["--accelerator=v9-8"], "no TPU software is known for v9-8; give --runtime"),
        (GKE, ["--name=Run_1"], "--name: expected at most 40 small letters"),
        (GKE, ["--workdir=/elsewhere/run"], "--workdir: expected a path below /work"),
        (GKE, ["--tpus=4"], "expected --gpus and --gpu-type, or --tpus"),
    ],
)
def test_bad_options_are_one_line(machine, script, change, message):
    refused(machine.run(script, *NEEDED[script], *change, "--dry-run"), message)


@pytest.mark.parametrize(
    ("script", "option"),
    [(script, o) for script in NEEDED for o in ("--config", "--workdir")]
    + [(TPU, o) for o in ("--name", "--zone", "--accelerator")]
    + [(GKE, o) for o in ("--name", "--image", "--claim", "--gpu-type")],
)
def test_missing_options_are_named(machine, script, option):
    rest = [a for a in NEEDED[script] if not a.startswith(f"{option}=")]
    refused(machine.run(script, *rest, "--dry-run"), f"{option} is missing")


@pytest.mark.parametrize(
    ("script", "extra", "there", "message"),
    [
        (GPU, [], [], "no interestyle command"),
        (GPU, [], ["interestyle"], "nvidia-smi not found; this needs an NVIDIA driver"),
        (GPU, ["--platform=cpu", "--min-free=99999999"], ["interestyle"], "expected 99999999"),
        (GPU, [*CPU, "--workdir=/proc/none"], ["interestyle"], "/proc/none/logs cannot be made"),
        (TPU, [], [], "gcloud not found; install the Google Cloud CLI"),
        (TPU, [], ["gcloud", "git"], "gcloud has no project"),
        (SLURM, [], ["srun", "scontrol", "squeue"], "this is no SLURM job"),
        (GKE, [], [], "kubectl not found"),
    ],
)
def test_missing_prerequisites_are_named_first(machine, script, extra, there, message):
    for name in there:
        machine.stub(name)
    # A .venv of the checkout is no concern of these tests.
    found = {} if "interestyle" in there else {"INTERESTYLE": "/nowhere/interestyle"}
    if "interestyle" in there:
        found["INTERESTYLE"] = "interestyle"
    done = machine.run(script, *NEEDED[script], *extra, **found)
    refused(done, message)
    assert not machine.workdir.exists()
    assert not machine.calls("interestyle")


@pytest.mark.parametrize("script", [GPU, TPU, SLURM])
def test_dry_run_changes_nothing_and_can_be_pasted(machine, script):
    odd = "--config.licence=a 'b' $HOME"
    done = machine.run(script, *NEEDED[script], odd, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert not machine.workdir.exists()
    assert not (machine.folder / "calls").exists()
    (train,) = [line for line in done.stdout.splitlines() if "interestyle train" in line]
    if script == TPU:
        (command,) = [w for w in shlex.split(train) if w.startswith("--command=")]
        train = re.search(r"then exec (.*) > >", command)[1]
    words = shlex.split(train)
    words = words[words.index("train") :]
    assert words[1:3] == [CONFIG, f"--workdir={machine.workdir}"]
    assert odd in words


@pytest.mark.parametrize("script", [GPU, TPU, SLURM])
def test_dry_run_shows_other_commands(machine, script):
    done = machine.run(script, *PLACES[script], "--dry-run", "--", *JOB)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(machine.folder.glob("work*")) and not (machine.folder / "calls").exists()
    (line,) = [line for line in done.stdout.splitlines() if "interestyle invert" in line]
    if script == TPU:
        (command,) = [w for w in shlex.split(line) if w.startswith("--command=")]
        line = re.search(r"then exec (.*) > >", command)[1]
    words = shlex.split(line)
    expected = [word.replace("WORK", str(machine.workdir)) for word in JOB]
    assert words[words.index("invert") :] == expected


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        *((script, ["--"], "no command behind --") for script in NEEDED),
        *((script, ["--", "--config=demo"], "a command behind --, as in") for script in NEEDED),
        *((script, [CONFIG, "--", *JOB], "--config: is for trainings") for script in NEEDED),
        *((script, ["--config.seed=1", "--", *JOB], "argument '--config.s") for script in NEEDED),
        (GPU, ["--", "serve"], "--workdir is missing, for logs, as serve has no --out"),
        (GPU, ["--processes=2", "--", "plan", "--out", "x"], "--processes: plan runs in one"),
        (GKE, ["--nodes=2", "--", "data", "--out=/work/x"], "--nodes: data runs in one process"),
        (
            GKE,
            ["--nodes=2", "--", "directions", "train", "--out=/work/x"],
            "--nodes: directions runs in one process",
        ),
        (GKE, ["--", "invert", "--out=/elsewhere/x"], "--out: expected a path below /work"),
        (TPU, ["--", "invert", "--out=here"], "expected an absolute path on a shared disk"),
        (TPU, ["--workdir=/w", "--", "invert", "--out=here"], "--out: expected an absolute path"),
    ],
)
def test_bad_commands_are_one_line(machine, script, words, message):
    refused(machine.run(script, *PLACES[script], "--dry-run", *words), message)


@pytest.mark.parametrize("job", ["edit", "mix", "directions global"])
def test_commands_that_several_processes_share(machine, job):
    """`interestyle JOB --help` has --shard."""
    words = ["--nodes=2", "--dry-run", "--", *job.split(), "--out=/work/x"]
    done = machine.run(GKE, *PLACES[GKE], *words)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", [GPU, TPU, SLURM, GKE])
def test_script_keeps_what_xla_compiles(script):
    assert re.search(r"JAX_COMPILATION_CACHE_DIR\b", (ROOT / script).read_text())


def test_xla_knows_the_flags():
    """XLA ends a process at a flag that it does not know."""
    flags = set()
    for script in (GPU, SLURM, GKE):
        flags |= set(re.findall(r"--xla_\w+=\w+", (ROOT / script).read_text()))
    assert flags

    def start(flags):
        return subprocess.run(
            [sys.executable, "-c", "import jax; print(jax.device_count())"],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    assert start(" ".join(flags)).stdout == "1\n"
    assert start("--xla_gpu_no_such_flag=true").returncode != 0
