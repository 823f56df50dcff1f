"""`plan` by the compilers of TPUs and GPUs, where they are installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interestyle_jax.json_file import read_json

pytestmark = pytest.mark.slow


def run_plan(folder, target, command):
    arguments = [
        "plan",
        "--config=interestyle_ffhq:smoke",
        f"--target={target}",
        f"--command={command}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "interestyle_jax", *arguments, f"--json={folder / 'plan'}"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")},
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    (program,) = read_json(folder / "plan")["programs"]
    return program, done


@pytest.mark.parametrize("target", ["v5e:2x2", "v4:2x2x1"])
def test_tpus(tmp_path, target):
    library = Path(os.environ.get("TPU_LIBRARY_PATH", "none"))
    if not library.exists() and importlib.util.find_spec("libtpu") is None:
        pytest.skip("the compiler of TPUs is not installed (extra [plan-tpu])")
    program, done = run_plan(tmp_path, target, "invert")
    assert program["fits"] and program["num_instructions"] > 1000
    assert program["estimated_seconds"] > program["floor_seconds_per_image"] > 0
    assert any(layer.startswith("Generator/up_") for layer in program["costliest"])
    assert program["collectives"] == []
    assert "It fits." in done.stdout and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "invert"])
def test_gpus(tmp_path, command):
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        pytest.skip("the compiler of NVIDIA GPUs is not installed (extra [plan-gpu])")
    program, done = run_plan(tmp_path, "h100", command)
    assert program["fits"] and "It fits." in done.stdout
    # One for each up-convolution of each synthesis at least; a zero-inserted map would be forward.
    assert program["convolutions"]["convBackwardInput"] >= 4 * 2
