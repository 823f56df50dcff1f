"""launch/slurm.sbatch, inside a job."""

import pytest

from tests.launch.stand_ins import COMPLETED, CONFIG, JOB, NEEDED, ROOT, SLURM, TRAINING


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


def test_slurm_runs_a_job_on_shares_of_the_gpus(allocation):
    allocation.stub("interestyle")
    tasks = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_GPUS_ON_NODE": "8"}
    done = allocation.run(SLURM, "--", *JOB, **tasks)
    assert done.returncode == 0, done.stderr
    # No report is looked for, nothing is queued.
    assert not allocation.calls("scontrol")
    expected = [word.replace("WORK", str(allocation.workdir)) for word in JOB]
    assert allocation.calls("interestyle") == [expected]
    (srun,) = allocation.calls("srun")
    assert {"--gpu-bind=per_task:2", "--kill-on-bad-exit=0"} <= set(srun)
    assert f"--output={allocation.workdir}.run/logs/task_%t.log" in srun


def test_slurm_queues_a_job_that_was_stopped_again(allocation):
    allocation.stub("interestyle", "exit 143")
    for _ in range(2):
        done = allocation.run(SLURM, "--max-restarts=0", "--", *JOB)
        # As srun has it, 128 + 15; it is no crash.
        assert done.returncode == 0, done.stderr
    assert allocation.calls("scontrol") == [["requeue", "77"]] * 2


def test_slurm_options_ask_for_a_signal_ahead_of_time():
    lines = (ROOT / SLURM).read_text().splitlines()
    options = [line.split()[1] for line in lines if line.startswith("#SBATCH ")]
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= set(options)
    # SLURM stops reading them at the first command.
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert all(i < first for i, line in enumerate(lines) if line.startswith("#SBATCH"))
