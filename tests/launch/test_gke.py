"""launch/gke/: the manifest that is submitted, and what a pod does."""

import shutil
import signal
import subprocess

import pytest
import yaml

from tests.launch.stand_ins import (
    COMPLETED,
    CONFIG,
    GKE,
    LASTS,
    NEEDED,
    PLACES,
    POD,
    ROOT,
    SAVES,
    refused,
)


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


def test_gke_manifest_of_a_job(machine):
    job = ["invert", "--weights=weights/w", "--input=/work/a b", "--out=/work/out/"]
    options = ["--nodes=2", "--dry-run", "--", *job]
    done = machine.run(GKE, *PLACES[GKE], *options)
    assert (done.returncode, done.stderr) == (0, "")
    manifest = next(yaml.safe_load_all(done.stdout))
    pods = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    (rule,) = pods["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert container["args"] == job
    names = {e["name"] for e in container["env"]}
    assert {"JAX_NUM_PROCESSES", "JAX_PROCESS_ID"} <= names


def test_pod_runs_the_command_that_it_is_given(machine):
    machine.stub("interestyle", "exit 143")
    words = ["masks", "--images=x", "--out=y"]
    done = machine.run(POD, *words, INTERESTYLE="interestyle", JOB_COMPLETION_INDEX="0")
    assert done.returncode == 143
    machine.stub("interestyle")
    assert machine.run(POD, *words, INTERESTYLE="interestyle").returncode == 0
    assert machine.calls("interestyle") == [words] * 2


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
