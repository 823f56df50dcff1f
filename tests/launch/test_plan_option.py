"""`--plan` of the launch scripts: `interestyle plan` for the job's machine, and nothing else."""

import pytest

from tests.launch.stand_ins import CONFIG, GPU, JOB, TPU, refused

GPUS = """
case "$*" in
  --list-gpus) printf 'GPU 0: x\nGPU 1: x\n' ;;
  *) printf '%s\n' "$NAME" "$NAME" ;;
esac
"""


def planned(machine, script, *arguments, **environment):
    """The target of the one `interestyle plan` that a script calls."""
    machine.stub("interestyle")
    environment = {"INTERESTYLE": "interestyle"} | environment
    done = machine.run(script, CONFIG, *arguments, "--config.batch_size=64", **environment)
    assert done.returncode == 0, done.stderr
    ((plan, config, target, *others),) = machine.calls("interestyle")
    assert (plan, config, others) == ("plan", CONFIG, ["--config.batch_size=64"])
    return target.removeprefix("--target=")


@pytest.mark.parametrize(
    ("accelerator", "target"),
    [
        ("v5litepod-8", "v5e:2x4"),
        ("v5litepod-256", "v5e:16x16"),
        ("v6e-1", "v6e:1x1"),
        ("v6e-32", "v6e:4x8"),
        # Cores, two a chip.
        ("v4-8", "v4:2x2x1"),
        ("v4-64", "v4:2x4x4"),
        ("v5p-128", "v5p:4x4x4"),
    ],
)
def test_slices_by_their_accelerators(machine, accelerator, target):
    """Neither a TPU's name nor a disk is needed, and no cloud."""
    assert planned(machine, TPU, "--plan", f"--accelerator={accelerator}") == target


def test_gpus_of_this_machine_or_of_another(machine):
    machine.stub("nvidia-smi", GPUS)
    assert planned(machine, GPU, "--plan", NAME="NVIDIA A100-SXM4-80GB") == "a100x2"


def test_other_machines_are_planned_without_a_driver(machine):
    assert planned(machine, GPU, "--plan=h100x8") == "h100x8"


def test_processors_share_a_plan(machine):
    options = ("--platform=cpu", "--processes=2", "--devices=4")
    assert planned(machine, GPU, "--plan", *options) == "cpux8"


def test_what_has_no_plan_is_one_line(machine):
    machine.stub("nvidia-smi", GPUS)
    refused(machine.run(GPU, CONFIG, "--plan", NAME="T4"), "no compiler for T4; give --plan=TARGET")
    refused(machine.run(GPU, "--plan=h100", "--", *JOB), "--plan: is for trainings, not for invert")
    refused(machine.run(TPU, CONFIG, "--plan"), "--accelerator is missing")
    for accelerator in ("v5litepod-12", "v4-2", "v2-8", "v5e"):
        done = machine.run(TPU, CONFIG, "--plan", f"--accelerator={accelerator}")
        refused(done, "--accelerator: ")


def test_a_missing_extra_is_what_the_command_says(machine):
    machine.stub("interestyle", "echo 'pip install \"interestyle_jax[plan-tpu]\"' >&2; exit 2")
    done = machine.run(*(TPU, CONFIG, "--plan", "--accelerator=v6e-8"), INTERESTYLE="interestyle")
    assert (done.returncode, done.stderr) == (2, 'pip install "interestyle_jax[plan-tpu]"\n')


def test_a_dry_run_shows_the_plans_command(machine):
    done = machine.run(TPU, CONFIG, "--plan", "--accelerator=v6e-8", "--dry-run")
    assert done.stdout == f"interestyle plan {CONFIG} --target=v6e:2x4\n"
