"""Processes compare what they read, and agree on a checkpoint."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.parallel import agreement, processes
from interestyle_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([{"a": 1}], None),
        ([{"a": 1, "b": (1, 2)}, {"a": 1, "b": [1, 2]}], None),
        ([{"a": 1}, {"a": 2}], ("a", "process 1 (host h1) has 2; process 0 (host h0) has 1")),
        # The odd one out, wherever it is; a field that one of them lacks.
        (
            [{"a": "x"}, {"a": "y"}, {"a": "y"}],
            ("a", 'process 0 (host h0) has "x"; process 1 (host h1) has "y"'),
        ),
        (
            [{"a": 1}, {"a": 1, "b": 2}],
            ("b", "process 1 (host h1) has 2; process 0 (host h0) has null"),
        ),
        (
            [{"a": 1}, {"a": 3}, {"a": 1}, {"a": 4}, {"a": 1}],
            (
                "a",
                "process 1 (host h1) has 3, process 3 (host h3) has 4; process 0 (host h0) has 1",
            ),
        ),
    ],
)
def test_difference_names_the_process(readings, expected):
    hosts = [f"h{i}" for i in range(len(readings))]
    assert agreement.find_difference(readings, hosts) == expected


def test_paths_of_data_and_weights_may_differ(monkeypatch):
    config = {"seed": 1, "data": {"dir": "/a", "workers": 1, "flip": True}, "weights": {"id": "/a"}}
    other = {"seed": 1, "data.flip": True}
    monkeypatch.setattr(processes, "gather", lambda value: [value, ["b", other]])
    agreement.check_same_config(config)
    other["data.flip"] = False
    with pytest.raises(InputError, match=r"^config.data.flip differs .*process 1 \(host b\) has f"):
        agreement.check_same_config(config)


def test_failure_of_another_process_ends_this_one(monkeypatch):
    monkeypatch.setattr(processes, "gather", lambda value: [value, [None, "Input/output error"]])
    with pytest.raises(MachineError, match="process 1 of 2 failed: Input/output error"):
        processes.together(lambda: 1)
    # Its own error goes first.
    with pytest.raises(KeyError):
        processes.together(lambda: {}["a"])


# What each of two processes does; the last scenario ends them.
SCENARIOS = """
import errno, sys
import jax, numpy as np
from pathlib import Path
from jax.sharding import NamedSharding, PartitionSpec
from interestyle_jax import weight_files
from interestyle_jax.errors import InputError
from interestyle_jax.parallel import agreement, processes
from interestyle_jax.training import checkpoints

port, index, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with processes.connected(processes.Address(f"127.0.0.1:{port}", 2, index)):
    assert processes.gather({"own": "x" * (1 + 9 * index)}) == [{"own": "x"}, {"own": "x" * 10}]
    agreement.check_same_content({"config.data.dir": "same"})
    for check in (
        lambda: agreement.check_same_config({"seed": index, "data": {"dir": str(index)}}),
        lambda: agreement.check_same_content({"config.data.dir": f"digest {index}"}),
    ):
        try:
            check()
        except InputError as error:
            print(error)
    place = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec())
    abstract = {"a": jax.ShapeDtypeStruct((300,), np.float32, sharding=place)}
    made = checkpoints.Checkpoints(folder, keep_latest=3)
    restored = made.restore(abstract)
    value = float(jax.device_get(restored.state["a"].addressable_data(0))[0])
    print("restored", restored.step, value, made.steps())
    check_files = weight_files.check_files

    def fails(*arguments):
        if index == 1:
            raise OSError(errno.EIO, "Input/output error", "/nfs/x")
        check_files(*arguments)

    weight_files.check_files = fails
    made.restore(abstract)
"""


def test_two_processes_agree_on_what_they_read(tmp_path):
    folder = tmp_path / "checkpoints"
    first = Checkpoints(folder, keep_latest=3)
    for step in (1, 2, 3):
        state = {"a": jax.numpy.full((300,), float(step))}
        first.save(step, state, data={}, meta={}, loss=float(step))
    first.close()
    # The digests of one are damaged, and of the other an array's values.
    (folder / "3" / "digests.json").write_text("{")
    files = [p for p in (folder / "2" / "state").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(bytes(largest.stat().st_size))

    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(ROOT),
    }
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCENARIOS, str(port), str(i), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(2)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    errors = [err for _, err in ended]
    assert [process.returncode for process in started] == [1, 1], errors
    for out, _ in ended:
        # JAX's collectives print lines of their own.
        config, content, restored = [x for x in out.splitlines() if not x.startswith("[Gloo]")]
        assert config.startswith("config.seed differs between processes: process 1 (host ")
        assert content.startswith("the content of config.data.dir differs between processes: ")
        assert '"digest 1"' in content and '"digest 0"' in content
        assert restored == "restored 1 1.0 [1]"
    assert (tmp_path / "broken_checkpoints" / "3").is_dir()
    assert (tmp_path / "broken_checkpoints" / "2").is_dir()
    # The error of one process moved nothing.
    assert (folder / "1").is_dir()
    lines = [[x for x in err.splitlines() if x.startswith("interestyle: error")] for err in errors]
    assert lines == [
        ["interestyle: error: process 0 of 2: process 1 of 2 failed: Input/output error"],
        ["interestyle: error: process 1 of 2: /nfs/x: Input/output error"],
    ]
