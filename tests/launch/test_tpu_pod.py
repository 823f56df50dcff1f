"""launch/tpu_pod.sh, against a cloud of two workers."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.launch.stand_ins import CONFIG, JOB, LASTS, NEEDED, PLACES, SAVES, TPU

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


def test_a_run_in_a_bucket_needs_no_shared_disk(cloud):
    place = "gs://bucket/run"
    options = [f"--workdir={place}", "--config.data.dir=gs://bucket/data"]
    done = tpu_pod(cloud, *options)
    folder = Path("/tmp/interestyle_pod")
    try:
        assert done.returncode == 0, done.stderr
        trained = ["train", CONFIG, f"--workdir={place}", "--config.data.dir=gs://bucket/data"]
        assert cloud.calls("trained") == [trained] * 2
        assert verbs(cloud) == ["describe", "create", "scp", *["ssh"] * 3, "delete"]
        assert (folder / "logs" / "worker_1.log").read_text() == "worker 1 trains\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


@pytest.mark.parametrize(("command", "workers"), [("invert", 2), ("plan", 1)])
def test_tpu_pod_runs_other_commands(cloud, command, workers):
    cloud.stub("curl", '[[ $* == *endpoints ]] && echo "a:1:h0,b:2:h1" || echo $WORKER')
    cloud.stub("trained", 'echo "part $JAX_PROCESS_ID of $JAX_NUM_PROCESSES"')
    job = [command, *JOB[1:]]
    done = cloud.run(TPU, *PLACES[TPU], "--pause=0", "--", *job)
    assert done.returncode == 0, done.stderr
    job = [word.replace("WORK", str(cloud.workdir)) for word in job]
    assert cloud.calls("trained") == [job] * workers
    parts = [f"part {i} of 2\n" for i in range(2)] if workers == 2 else ["part  of \n"]
    logs = sorted(cloud.folder.glob("work.run/logs/worker_*.log"))
    assert [log.read_text() for log in logs] == parts


@pytest.mark.parametrize(
    ("environment", "option", "cache"),
    [
        ({}, [], "WORK/xla_cache"),
        ({}, ["--shared=/mnt/our disk"], "/mnt/our disk/xla_cache"),
        ({"JAX_COMPILATION_CACHE_DIR": "/mnt/xla"}, ["--shared=/mnt/shared"], "/mnt/xla"),
    ],
)
def test_tpu_pod_caches_what_xla_compiles(cloud, environment, option, cache):
    cloud.stub("trained", 'echo "cache $JAX_COMPILATION_CACHE_DIR"')
    done = tpu_pod(cloud, *option, **environment)
    assert done.returncode == 0, done.stderr
    expected = f"cache {cache.replace('WORK', str(cloud.workdir))}\n"
    assert expected in done.stdout
    assert (cloud.workdir / "logs" / "worker_1.log").read_text() == expected


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
