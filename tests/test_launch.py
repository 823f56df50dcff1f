"""The launch scripts, against commands that only note how they were called."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from interestyle_jax.data.avatar_builder import write_avatars

ROOT = Path(__file__).resolve().parents[1]
GPU, TPU, SLURM, GKE, POD = (
    f"launch/{name}"
    for name in ("gpu_node.sh", "tpu_pod.sh", "slurm.sbatch", "gke/submit.sh", "gke/pod.sh")
)
# What the scripts may use of a system. Nothing else is on their PATH: a real gcloud is never run.
TOOLS = (
    *("awk", "bash", "cat", "date", "df", "dirname", "env", "grep", "gzip", "hostname", "ln"),
    *("mkdir", "mktemp", "rm", "sed", "seq", "sleep", "tar", "tee", "touch", "tr", "true", "wc"),
)
CONFIG = "--config=configs/demo.py"
# Of a stub's body: what a training does at SIGTERM, and twenty seconds of work.
SAVES = "trap 'echo saved; exit 0' TERM"
LASTS = "for i in {1..200}; do sleep 0.1; done"
COMPLETED = '{\n  "status": "completed"\n}\n'
CPU = ("--platform=cpu", "--min-free=0", "--pause=0")
NEEDED = {
    GPU: [CONFIG, "--workdir=WORK"],
    TPU: ["--name=pod", "--zone=z-a", "--accelerator=v5litepod-16", CONFIG, "--workdir=WORK"],
    SLURM: [CONFIG, "--workdir=WORK"],
    GKE: [
        *("--name=run", "--image=registry/image", "--claim=disk", "--mount=/work", CONFIG),
        *("--workdir=/work/run", "--gpus=8", "--gpu-type=nvidia-h100-80gb"),
    ],
}


class Machine:
    """A PATH of system tools and stubs; a stub notes its call and then runs its body."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.workdir = folder / "work"
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "CALLS": str(folder / "calls"),
            "WORK": str(self.workdir),
        }

    def stub(self, name: str, body: str = "") -> Path:
        path = self.bin / name
        path.write_text(
            "#!/usr/bin/env bash\n"
            # In one piece: workers write at the same time.
            f'line=$(printf "%s\\t" {name} "$@") && echo "$line" >>"$CALLS"\n'
            # How often it was called, this call included.
            f'n=$(grep -c "^{name}\t" "$CALLS")\n{body}\n'
        )
        path.chmod(0o755)
        return path

    def command(self, script: str, *arguments: str) -> list[str]:
        arguments = [a.replace("WORK", str(self.workdir)) for a in arguments]
        return [str(self.bin / "bash"), str(ROOT / script), *arguments]

    def run(self, script: str, *arguments: str, **environment: str):
        return subprocess.run(
            self.command(script, *arguments),
            env=self.environment | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, script: str, *arguments: str, **environment: str):
        # A test run in the background ignores SIGINT, and bash cannot trap what was ignored.
        return subprocess.Popen(
            ["/usr/bin/env", "--default-signal=INT", *self.command(script, *arguments)],
            env=self.environment | environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self, name: str) -> list[list[str]]:
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [c[1:] for c in (line.split("\t")[:-1] for line in lines) if c[0] == name]

    def wait_for(self, path: Path, text: str) -> None:
        deadline = time.monotonic() + 20
        while not (path.exists() and text in path.read_text()):
            assert time.monotonic() < deadline, f"no {text!r} in {path}"
            time.sleep(0.05)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def refused(done, message: str) -> None:
    """Status 2, and one line on stderr that says so."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


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
        (TPU, ["--workdir=gs://bucket/run"], "gs:// paths are not supported"),
        (TPU, ["--config.data.dir=gs://bucket/data"], "gs:// paths are not supported"),
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


# ---- gpu_node.sh

TRAINING = f"""{SAVES}
printf '%s\\n' "$JAX_LOCAL_DEVICE_IDS|$JAX_PLATFORMS|$XLA_FLAGS" >>"$HOME/environment"
echo "step of $n"
for word in "$@"; do [[ $word != --process-id=* ]] || process=${{word#*=}}; done
"""


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


TINY = """
from interestyle_jax.training.presets import encoder_config

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
    assert '\n  "status": "completed"' in (workdir / "report.json").read_text()


# ---- tpu_pod.sh

# Two workers, each with a home of its own; what ssh is given is run in it.
GCLOUD = """
case "$*" in
  *"config get-value project"*) echo some-project ;;
  *" tpu-vm describe "*) cat "$HOME/state" 2>/dev/null ;;
  *" create "*) echo READY >"$HOME/state" ;;
  *" queued-resources describe "*) ((n % 2)) && echo ACTIVE || echo PROVISIONING ;;
  *" delete "*) rm "$HOME/state" ;;
  *" scp "*)
    for worker in 0 1; do cat "$5" >"$HOME/w$worker/${5##*/}"; done ;;
  *" ssh "*)
    workers="0 1" failed=0
    [[ $* == *--worker=all* ]] || workers=0
    for word in "$@"; do [[ $word != --command=* ]] || command=${word#*=}; done
    pids=()
    for worker in $workers; do
      (cd "$HOME/w$worker" && HOME=$PWD WORKER=$worker exec bash -c "$command") &
      pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=$?; done
    exit $failed ;;
esac
"""
# The archive of the last commit holds an installed command.
GIT = """
if [[ $1 == archive ]]; then
  mkdir -p "$HOME/code/.venv/bin" && cp "$HOME/bin/trained" "$HOME/code/.venv/bin/interestyle"
  for word in "$@"; do [[ $word != --output=* ]] || out=${word#*=}; done
  tar -czf "$out" -C "$HOME/code" .
fi
"""


@pytest.fixture
def cloud(machine):
    """A machine with gcloud, git, and on the workers curl, pip, uv and the training."""
    for worker in ("w0", "w1"):
        (machine.folder / worker).mkdir()
    (machine.bin / "cp").symlink_to(shutil.which("cp"))
    machine.stub("gcloud", GCLOUD)
    machine.stub("git", GIT)
    machine.stub("python3")
    machine.stub("curl", "echo $WORKER")
    machine.stub("trained", 'echo "worker $WORKER trains"')
    return machine


def tpu_pod(cloud, *arguments, **environment):
    return cloud.run(TPU, *NEEDED[TPU], "--pause=0", *arguments, **environment)


def verbs(cloud):
    """The gcloud commands that were given, in short."""
    known = ("describe", "create", "scp", "ssh", "delete")
    return [next(w for w in c if w in known) for c in cloud.calls("gcloud") if "tpus" in c]


def test_tpu_pod_creates_trains_and_deletes(cloud):
    done = tpu_pod(cloud, "--config.batch_size=64", "--setup=echo mounted")
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["describe", "create", "ssh", "scp", *["ssh"] * 5, "delete"]
    # Of the training, worker 0 alone is shown; both write logs.
    assert done.stdout.count("worker 0 trains") == 1 and "worker 1" not in done.stdout
    for i in range(2):
        log = cloud.workdir / "logs" / f"worker_{i}.log"
        assert log.read_text() == f"worker {i} trains\n"
    trained = ["train", CONFIG, f"--workdir={cloud.workdir}", "--config.batch_size=64"]
    assert cloud.calls("trained") == [trained] * 2
    create = next(c for c in cloud.calls("gcloud") if "create" in c)
    assert {"--zone=z-a", "--version=v2-alpha-tpuv5-lite", "--quiet"} <= set(create)
    assert "--spot" not in create
    assert not list(cloud.workdir.glob(".shared_*"))


@pytest.mark.parametrize(
    ("there", "option", "created", "deleted"),
    [(True, [], False, False), (False, ["--keep"], True, False), (False, ["--spot"], True, True)],
)
def test_tpu_pod_deletes_only_what_it_made(cloud, there, option, created, deleted):
    if there:
        (cloud.folder / "state").write_text("READY\n")
    done = tpu_pod(cloud, *option)
    assert done.returncode == 0, done.stderr
    assert ("create" in verbs(cloud), "delete" in verbs(cloud)) == (created, deleted)


def test_tpu_pod_replaces_a_tpu_that_was_taken_back(cloud):
    cloud.stub("trained", 'if ((n <= 2)); then echo PREEMPTED >"${HOME%/*}/state"; exit 1; fi')
    done = tpu_pod(cloud, "--spot", "--queued")
    assert done.returncode == 0, done.stderr
    assert "ended with status 1; restart 1 of 3" in done.stderr
    assert "pod is PROVISIONING, waiting" in done.stdout
    order = [v for v in verbs(cloud) if v in ("create", "delete")]
    assert order == ["create", "delete", "create", "delete"]


def test_tpu_pod_gives_up_at_the_limit_and_still_deletes(cloud):
    cloud.stub("trained", "exit 1")
    done = tpu_pod(cloud, "--max-restarts=1")
    assert done.returncode == 1
    assert "after 1 restarts" in done.stderr
    assert [v for v in verbs(cloud) if v in ("create", "delete")] == ["create", "delete"]


def test_tpu_pod_refuses_a_disk_that_is_not_shared(cloud):
    cloud.environment["WORK"] = "work"
    # A path through each worker's own home.
    own = cloud.folder / "own"
    body = GCLOUD.replace('exec bash -c "$command"', 'exec bash -c "${command//$OWN/$PWD/own}"')
    cloud.stub("gcloud", body)
    done = tpu_pod(cloud, f"--workdir={own}", OWN=str(own))
    assert done.returncode == 2
    assert "--workdir is not on a disk that" in done.stderr
    assert not cloud.calls("trained")
    assert verbs(cloud)[-1] == "delete"


def test_tpu_pod_passes_sigterm_on(cloud):
    cloud.stub("trained", f"{SAVES}; echo begun; {LASTS}; exit 1")
    started = cloud.start(TPU, *NEEDED[TPU], "--pause=0")
    for i in range(2):
        cloud.wait_for(cloud.workdir / "logs" / f"worker_{i}.log", "begun")
    started.send_signal(signal.SIGTERM)
    out, error = started.communicate(timeout=30)
    assert started.returncode == 0, error
    assert "saved" in out
    assert (cloud.workdir / "logs" / "worker_1.log").read_text() == "begun\nsaved\n"
    assert verbs(cloud)[-1] == "delete"


# ---- slurm.sbatch


@pytest.fixture
def allocation(machine):
    """A machine inside a SLURM job; `srun` runs one task, without its options."""
    machine.stub("srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    machine.stub("scontrol")
    machine.stub("squeue", 'echo "${STATE:-RUNNING}"')
    machine.environment |= {"SLURM_JOB_ID": "77", "INTERESTYLE": "interestyle"}
    return machine


def slurm(machine, *arguments, **environment):
    return machine.run(SLURM, *NEEDED[SLURM], *arguments, **environment)


def test_slurm_ends_when_the_run_is_completed(allocation):
    report = f"printf '%s' '{COMPLETED}' >\"$WORK/report.json\""
    allocation.stub("interestyle", TRAINING + report)
    done = slurm(allocation, "--config.seed=1", SLURM_NTASKS_PER_NODE="1", SLURM_GPUS_ON_NODE="4")
    assert done.returncode == 0, done.stderr
    assert not allocation.calls("scontrol")
    assert allocation.calls("interestyle") == [
        ["train", CONFIG, f"--workdir={allocation.workdir}", "--config.seed=1"]
    ]
    # One task a node: all of its GPUs, where JAX's default would be one.
    assert (allocation.folder / "environment").read_text().startswith("0,1,2,3|")
    (srun,) = allocation.calls("srun")
    assert f"--output={allocation.workdir}/logs/task_%t.log" in srun


def test_slurm_leaves_a_task_a_gpu_to_jax(allocation):
    allocation.stub("interestyle", TRAINING)
    slurm(allocation, SLURM_NTASKS_PER_NODE="4", SLURM_GPUS_ON_NODE="4")
    assert (allocation.folder / "environment").read_text().startswith("|")


@pytest.mark.parametrize(
    ("status", "state", "queued"),
    [(0, "RUNNING", True), (0, "COMPLETING", False), (0, "PENDING", False), (2, "RUNNING", False)],
)
def test_slurm_queues_an_unfinished_run_again(allocation, status, state, queued):
    report = COMPLETED.replace("completed", "preempted")
    allocation.stub("interestyle", f"printf '%s' '{report}' >\"$WORK/report.json\"; exit {status}")
    done = slurm(allocation, STATE=state)
    assert done.returncode == status
    assert allocation.calls("scontrol") == [["requeue", "77"]] * queued


def test_slurm_counts_crashes(allocation):
    allocation.stub("interestyle", "exit 134")
    first, second = (slurm(allocation, "--max-restarts=1") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 134)
    assert "error: the training ended with status 134, after 1 restarts" in second.stderr
    assert len(allocation.calls("scontrol")) == 1


def test_slurm_options_ask_for_a_signal_ahead_of_time():
    lines = (ROOT / SLURM).read_text().splitlines()
    options = [line.split()[1] for line in lines if line.startswith("#SBATCH ")]
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= set(options)
    # SLURM stops reading them at the first command.
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert all(i < first for i, line in enumerate(lines) if line.startswith("#SBATCH"))


# ---- gke/


def jobset(machine, *arguments):
    done = machine.run(GKE, *NEEDED[GKE], *arguments, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    manifest, commands = yaml.safe_load_all(done.stdout)
    # The commands are comments.
    assert commands is None and "# kubectl" in done.stdout
    (workers,) = manifest["spec"]["replicatedJobs"]
    return manifest, workers["template"]["spec"]


def test_gke_manifest_of_gpu_nodes(machine):
    odd = "--config.licence=a \"b\" \\ 'c': {d}"
    manifest, job = jobset(machine, "--nodes=2", "--spot", "--max-restarts=4", "--grace=60", odd)
    assert manifest["kind"] == "JobSet" and manifest["metadata"]["name"] == "run"
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 4
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, 2)
    assert job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2]
    pod = job["template"]["spec"]
    # A pod failure policy needs it.
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["args"] == [CONFIG, "--workdir=/work/run", odd]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    environment = {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}
    # The first pod's name in the job `workers`, in the domain that JobSet makes.
    assert environment["JAX_COORDINATOR_ADDRESS"] == "run-workers-0-0.run:8476"
    assert manifest["spec"]["network"]["enableDNSHostnames"]
    assert environment["JAX_NUM_PROCESSES"] == "2"
    path = environment["JAX_PROCESS_ID"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert environment["SHARED"] == "/work"
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == "disk"
    assert {m["name"] for m in container["volumeMounts"]} == set(volumes)


def test_gke_manifest_of_one_node_and_of_tpus(machine):
    _, job = jobset(machine)
    (container,) = job["template"]["spec"]["containers"]
    assert container["args"][-1] == "--distributed=off"
    assert not any("PROCESS" in e["name"] for e in container["env"])

    rest = [a for a in NEEDED[GKE] if not a.startswith("--gpu")]
    tpus = ["--tpus=4", "--tpu-type=tpu-v5-lite-podslice", "--topology=4x4", "--nodes=4"]
    done = machine.run(GKE, *rest, *tpus, "--dry-run")
    pod = next(yaml.safe_load_all(done.stdout))["spec"]["replicatedJobs"][0]
    pod = pod["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    names = {e["name"] for e in container["env"]}
    assert not names & {"XLA_FLAGS", "JAX_COORDINATOR_ADDRESS"}


def test_gke_applies_the_manifest_it_shows(machine):
    machine.stub(
        "kubectl",
        '[[ $* != *"get jobset"* ]] || exit 1; [[ $* != *apply* ]] || cat >"$HOME/applied"',
    )
    done = machine.run(GKE, *NEEDED[GKE], "--namespace=ours")
    assert done.returncode == 0, done.stderr
    applied = (machine.folder / "applied").read_text()
    shown = machine.run(GKE, *NEEDED[GKE], "--namespace=ours", "--dry-run").stdout
    assert shown.startswith(applied) and len(applied) > 1000
    assert [c[1:3] for c in machine.calls("kubectl")] == [
        ["get", "crd"],
        ["get", "pvc"],
        ["get", "jobset"],
        ["apply", "--filename=-"],
    ]
    assert "kubectl --namespace=ours logs --follow" in done.stdout


@pytest.mark.parametrize(
    ("missing", "message"),
    [("crd", "has no JobSet controller"), ("pvc", "--claim: no PersistentVolumeClaim disk")],
)
def test_gke_asks_the_cluster_first(machine, missing, message):
    machine.stub("kubectl", f'[[ $* != *"get {missing}"* ]]')
    refused(machine.run(GKE, *NEEDED[GKE]), message)
    assert not any("apply" in c for c in machine.calls("kubectl"))


@pytest.mark.parametrize(
    ("index", "status", "said", "ends"),
    [
        ("0", 0, "completed", 0),
        ("0", 0, "preempted", 75),
        ("1", 0, "preempted", 0),
        ("0", 2, "preempted", 2),
        ("1", 134, "preempted", 134),
    ],
)
def test_pod_ends_well_only_with_a_completed_run(machine, index, status, said, ends):
    machine.workdir.mkdir()
    (machine.workdir / "report.json").write_text(COMPLETED.replace("completed", said))
    machine.stub("interestyle", f"exit {status}")
    words = [CONFIG, f"--workdir={machine.workdir}"]
    environment = {"INTERESTYLE": "interestyle", "JOB_COMPLETION_INDEX": index}
    assert machine.run(POD, *words, **environment).returncode == ends
    assert machine.calls("interestyle") == [["train", *words]]


def test_pod_passes_sigterm_on(machine):
    machine.stub("interestyle", f'{SAVES}; touch "$WORK/begun"; {LASTS}')
    machine.workdir.mkdir()
    started = machine.start(POD, "--workdir=WORK", INTERESTYLE="interestyle")
    machine.wait_for(machine.workdir / "begun", "")
    started.send_signal(signal.SIGTERM)
    out, _ = started.communicate(timeout=30)
    assert out == "saved\n"
    assert started.returncode == 75


def test_pod_sees_folders_of_the_shared_volume_as_its_own(machine):
    """In a copy of the checkout, where `weights` is there already and `data` is not."""
    copy, shared = machine.folder / "copy", machine.folder / "shared"
    shutil.copytree(ROOT / "launch", copy / "launch")
    for folder in (copy / "weights", shared / "weights", shared / "data" / "ffhq"):
        folder.mkdir(parents=True)
    machine.workdir.mkdir()
    (machine.workdir / "report.json").write_text(COMPLETED)
    machine.stub("interestyle", "[[ -d data/ffhq && ! -L weights ]]")
    command = [str(machine.bin / "bash"), str(copy / POD), f"--workdir={machine.workdir}"]
    environment = machine.environment | {"INTERESTYLE": "interestyle", "SHARED": str(shared)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (copy / "data").readlink() == shared / "data"
