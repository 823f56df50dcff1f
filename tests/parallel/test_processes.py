"""Several processes: how they find each other, compute what one does, and end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.errors import InputError
from interestyle_jax.parallel import processes
from interestyle_jax.parallel.processes import Address, find_address

ROOT = Path(__file__).resolve().parents[2]
# The command as typed, which also writes down which examples each step sees.
COMMAND = """
import json, sys
from interestyle_jax import cli
from interestyle_jax.parallel import sharding
from interestyle_jax.training import trainer
next_batch = trainer.Trainer.next_batch
def recorded(self):
    batch = next_batch(self)
    with open(sys.argv[1], "a") as file:
        print(json.dumps(sharding.to_host(batch["id"]).tolist()), file=file)
    return batch
trainer.Trainer.next_batch = recorded
sys.exit(cli.main(sys.argv[2:]))
"""
TINY = """
from interestyle_jax.config.presets import encoder_config
def get_config():
    config = encoder_config("interestyle")
    config.weights.generator = {generator!r}
    config.weights.lpips = ""
    config.encoder = {{"type": "BackboneEncoder", "input_size": 32, "units": (1, 1),
                       "widths": (4, 4, 8), "head_width": 8}}
    config.method.num_iterations = 2
    config.method.filter_radii = (16.0,)
    config.loss = {{"l2": 1.0}}
    config.log_every = 1
    config.image_every = 1000
    config.validation_samples = 8
    return config
"""
DEMO = """
from interestyle_jax.config.files import load_config
def get_config():
    config = load_config({demo!r})
    config.single_pass_until = 0.0
    # Muon's products make more of the order of sums than the bounds allow, and a cosine would
    # depend on the number of steps.
    config.optimizer = {{"name": "ranger", "learning_rate": 1e-3, "b2": 0.99}}
    return config
"""


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ((), {}, None),
        (("host:1", 2, 1), {"SLURM_NTASKS": "8"}, ("host:1", 2, 1)),
        (
            (),
            {"JAX_COORDINATOR_ADDRESS": "a:9", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"},
            ("a:9", 4, 3),
        ),
        (
            (),
            {
                "JAX_COORDINATOR_ADDRESS": "a:9",
                "JAX_NUM_PROCESSES": "4",
                "JOB_COMPLETION_INDEX": "2",
            },
            ("a:9", 4, 2),
        ),
        (
            (),
            {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"},
            (None, None, None),
        ),
        # A batch script itself, outside of srun; a step of one task.
        ((), {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),
        ((), {"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, None),
        ((), {"OMPI_COMM_WORLD_SIZE": "16"}, (None, None, None)),
    ],
)
def test_address_is_found(given, environment, expected):
    found = find_address(Address(*given), environment=environment)
    assert found == (None if expected is None else Address(*expected))
    if not given:
        assert find_address(Address(), environment=environment, detect=False) is None


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        (("h:1", 2, None), {}, "--process-id: missing, it belongs with --coordinator, --num-proc"),
        ((None, None, 1), {}, "--coordinator: missing"),
        (("h", 2, 1), {}, "--coordinator: 'h', expected HOST:PORT"),
        (("h:1", 2, 2), {}, r"--process-id: 2, expected from 0 to 1 \(--num-processes is 2\)"),
        ((), {"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_NUM_PROCESSES: missing"),
        (
            (),
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "two"},
            "JAX_NUM_PROCESSES: 'two', expected a whole number",
        ),
    ],
)
def test_half_an_address_is_refused(given, environment, words):
    with pytest.raises(InputError, match=words):
        find_address(Address(*given), environment=environment)


@pytest.mark.parametrize(
    ("platforms", "found"),
    [(None, True), ("", True), ("tpu", True), ("tpu,cpu", True), ("cpu", False), ("cuda", False)],
)
def test_tpu_host_is_found_where_the_platforms_allow_it(monkeypatch, platforms, found):
    monkeypatch.setattr(processes, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(processes, "glob", lambda pattern: ["/dev/accel0"])
    environment = {} if platforms is None else {"JAX_PLATFORMS": platforms}
    assert find_address(Address(), environment=environment) == (Address() if found else None)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Runs:
    """Starts trainings of one config as users do, in one or several processes."""

    def __init__(self, folder: Path, config: str, *options: str):
        self.folder, self.config, self.options = folder, config, options

    def start(self, name: str, *options: str, processes: int = 1, devices: int = 8):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
            "PYTHONPATH": str(ROOT),
        }
        port, started = free_port(), []
        for i in range(processes):
            command = ["train", f"--config={self.config}", f"--workdir={self.folder / name}"]
            command += [*self.options, *options]
            if processes > 1:
                command += [f"--coordinator=127.0.0.1:{port}", f"--num-processes={processes}"]
                command += [f"--process-id={i}"]
            log = open(self.folder / f"{name}.{i}.log", "a+")
            seen = self.folder / f"{name}.{i}.ids"
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", COMMAND, str(seen), *command],
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
            )
            log.close()
        return started

    def run(self, name: str, *options: str, processes: int = 1, devices: int = 8) -> None:
        started = self.start(name, *options, processes=processes, devices=devices)
        assert [p.wait(timeout=600) for p in started] == [0] * processes, self.log(name)

    def log(self, name: str, process: int | None = None) -> str:
        logs = self.folder.glob(f"{name}.{'*' if process is None else process}.log")
        return "\n".join(path.read_text() for path in sorted(logs))

    def ids(self, name: str, process: int = 0) -> list[list[int]]:
        lines = (self.folder / f"{name}.{process}.ids").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def metrics(self, name: str) -> dict[int, dict[str, float]]:
        path, steps = self.folder / name / "metrics.jsonl", {}
        for line in path.read_text().splitlines() if path.exists() else ():
            values = json.loads(line)
            steps.setdefault(values.pop("step"), {}).update(values)
        return steps

    def parameters(self, name: str, step: int) -> dict[str, np.ndarray]:
        path = self.folder.resolve() / name / "checkpoints" / str(step) / "state"
        checkpointer = ocp.PyTreeCheckpointer()
        shapes = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        return {
            jax.tree_util.keystr(path): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree["params"])[0]
        }

    def wait_for_steps(self, name: str, count: int) -> None:
        for _ in range(1200):
            if len(self.metrics(name)) >= count:
                return
            time.sleep(0.1)
        raise AssertionError(self.log(name))


def assert_same_figures(got, want, steps):
    """Losses to 1e-5; gradients jump where rounding moves a value over a ReLU's or pool's edge."""
    for step in steps:
        for field in set(want[step]) - {"images_per_second"}:
            np.testing.assert_allclose(
                got[step][field],
                want[step][field],
                rtol=1e-3 if field == "grad_norm" else 1e-5,
                err_msg=f"{field} of step {step}",
            )


def assert_same_parameters(got, want):
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_weights):
    folder = tmp_path_factory.mktemp("several")
    write_avatars(
        folder / "data", sizes={"train": 24, "validation": 10, "test": 2}, size=32, workers=0
    )
    config = folder / "tiny.py"
    config.write_text(TINY.format(generator=str(tiny_weights / "generator")))
    return Runs(folder, str(config), f"--config.data.dir={folder / 'data'}")


@pytest.mark.slow
def test_two_processes_do_what_one_does(tiny):
    """Fast twins: eight devices (test_train_loop.py), two processes (test_agreement.py)."""
    steps = ("--config.num_steps=2", "--config.checkpoint_every=2")
    tiny.run("one", *steps)
    tiny.run("two", *steps, processes=2, devices=4)
    assert tiny.ids("two", 0) == tiny.ids("two", 1) == tiny.ids("one")
    assert_same_figures(tiny.metrics("two"), tiny.metrics("one"), (1, 2))
    assert_same_parameters(tiny.parameters("two", 2), tiny.parameters("one", 2))
    report = json.loads((tiny.folder / "two" / "report.json").read_text())
    assert (report["status"], report["processes"], report["devices"]) == ("completed", 2, 8)
    # One of them writes and speaks.
    lines = (tiny.folder / "two" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((tiny.folder / "one" / "metrics.jsonl").read_text().splitlines())
    assert len(list((tiny.folder / "two" / "tensorboard").iterdir())) == 1
    assert "completed at step 2" in tiny.log("two", 0)
    assert "completed" not in tiny.log("two", 1)


def test_missing_process_ends_the_others_with_a_line():
    code = (
        "from interestyle_jax.parallel.processes import Address, connected\n"
        f"with connected(Address('127.0.0.1:{free_port()}', 2, 0), timeout=3):\n    pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("interestyle: error: process 0 of 2 was ended: a peer was lost, or not")
    assert "within 3 s" in last


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_lost_process_ends_the_others_within_a_minute(tiny, victim):
    name = f"lost_{victim}"
    started = tiny.start(name, "--config.num_steps=100000", processes=2, devices=4)
    try:
        tiny.wait_for_steps(name, 3)
        started[victim].kill()
        begun = time.monotonic()
        assert started[1 - victim].wait(timeout=60) != 0
        assert time.monotonic() - begun < 60
        assert f"interestyle: error: process {1 - victim} of 2" in tiny.log(name, 1 - victim)
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
def test_sigterm_to_one_saves_and_ends_all_with_status_0(tiny):
    options = ("--config.num_steps=100000", "--config.checkpoint_every=100000")
    started = tiny.start("asked", *options, processes=2, devices=4)
    try:
        tiny.wait_for_steps("asked", 3)
        started[1].send_signal(signal.SIGTERM)
        assert [p.wait(timeout=60) for p in started] == [0, 0], tiny.log("asked")
    finally:
        for process in started:
            process.kill()
    report = json.loads((tiny.folder / "asked" / "report.json").read_text())
    assert report["status"] == "preempted"
    step = report["last_step"]
    assert (tiny.folder / "asked" / "checkpoints" / str(step)).is_dir()
    more = f"--config.num_steps={step + 1}"
    tiny.run("asked", more, processes=2, devices=4)
    assert f"resuming from step {step}" in tiny.log("asked", 0)
    assert max(tiny.metrics("asked")) == step + 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """configs/demo.py with a batch of eight, and three steps of it in one process."""
    folder = tmp_path_factory.mktemp("demo")
    config = folder / "demo.py"
    config.write_text(DEMO.format(demo=str(ROOT / "configs" / "demo.py")))
    write_avatars(
        folder / "data", sizes={"train": 24, "validation": 8, "test": 2}, size=64, workers=0
    )
    runs = Runs(
        folder,
        str(config),
        f"--config.data.dir={folder / 'data'}",
        *("--config.batch_size=8", "--config.checkpoint_every=2", "--config.log_every=1"),
        *("--config.validation_samples=8", "--config.image_every=1000"),
    )
    runs.run("one", "--config.num_steps=3")
    return runs


@pytest.mark.slow
def test_demo_on_two_processes_data_parallel(demo):
    demo.run("data", "--config.num_steps=3", processes=2, devices=4)
    assert demo.ids("data") == demo.ids("one")
    assert_same_figures(demo.metrics("data"), demo.metrics("one"), (1, 2, 3))
    assert_same_parameters(demo.parameters("data", 3), demo.parameters("one", 3))


@pytest.mark.slow
def test_demo_sharded_over_two_processes_goes_on_anywhere(demo):
    """Two processes, fsdp of four: saved there, restored on 1 x 8 and on 1 x 1 devices."""
    demo.run("fsdp", "--config.num_steps=2", "--config.mesh.fsdp=4", processes=2, devices=4)
    assert_same_figures(demo.metrics("fsdp"), demo.metrics("one"), (1, 2))
    assert_same_parameters(demo.parameters("fsdp", 2), demo.parameters("one", 2))
    for name, devices in (("eight", 8), ("single", 1)):
        shutil.copytree(demo.folder / "fsdp", demo.folder / name)
        demo.run(name, "--config.num_steps=3", devices=devices)
        assert "resuming from step 2" in demo.log(name)
        assert demo.ids(name) == demo.ids("one")[2:]
        assert_same_figures(demo.metrics(name), demo.metrics("one"), (3,))
        assert_same_parameters(demo.parameters(name, 3), demo.parameters("one", 3))
