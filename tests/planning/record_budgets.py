"""Plans of small programs by the compilers of accelerators, and the budgets that they must keep.

    python -m tests.planning.record_budgets               # all whose compiler is installed
    python -m tests.planning.record_budgets h100_train    # one

writes the figures of today's code to budgets.json, after a change that is meant to move them.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BUDGETS = Path(__file__).with_name("budgets.json")
# How far a figure may rise above what was recorded, as a share of it.
MARGIN = 0.05


def missing_compiler(target: str) -> str | None:
    """Why a target cannot be planned for here; None where it can."""
    if target.startswith("v"):
        library = Path(os.environ.get("TPU_LIBRARY_PATH", "none"))
        if not library.exists() and importlib.util.find_spec("libtpu") is None:
            return "the compiler of TPUs is not installed (extra [plan-tpu])"
    elif importlib.util.find_spec("jax_cuda13_plugin") is None:
        return "the compiler of NVIDIA GPUs is not installed (extra [plan-gpu])"
    return None


def measure(target: str, options: list[str]) -> dict[str, float]:
    """The figures of the one program that `interestyle plan` compiles for a target.

    Those that a compiler does not give are left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        done = subprocess.run(
            [sys.executable, "-m", "interestyle_jax", "plan", f"--target={target}", *options]
            + [f"--json={path}"],
            env={k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        (program,) = json.loads(path.read_text())["programs"]
    found = {
        "MiB needed of a device": program["needed_bytes"] / 2**20,
        "MB accessed for an image": program["bytes_per_image"] / 1e6,
        "microseconds of an image, estimated": program["estimated_seconds_per_image"]
        and program["estimated_seconds_per_image"] * 1e6,
        "collectives": sum(c["count"] for c in program["collectives"]),
        "MiB of collectives": sum(c["bytes"] for c in program["collectives"]) / 2**20,
        "copies and transposes": program["copies"],
        "maps with zeros inserted": program["zero_inserted"],
        "instructions": program["num_instructions"],
    }
    kinds = {f"library calls {k}": n for k, n in program["convolutions"].items()}
    kinds |= {f"up-convolutions {k}": n for k, n in program["up_convolutions"].items()}
    return {k: round(v, 1) for k, v in (found | kinds).items() if v is not None}


def broken(budget: dict[str, float], found: dict[str, float]) -> list[str]:
    """A line for every figure that rose above its budget, or that has none."""
    lines = []
    for name, value in found.items():
        allowed = budget.get(name, 0.0)
        if value > allowed * (1 + MARGIN):
            lines.append(f"{name}: {value:g}, the budget is {allowed:g} + {MARGIN:.0%}")
    return lines


def main(names: list[str]) -> None:
    """Records the budgets of these programs, or of all."""
    programs = json.loads(BUDGETS.read_text())
    for name in names or programs:
        program = programs[name]
        reason = missing_compiler(program["target"])
        if reason is None:
            program["figures"] = measure(program["target"], program["options"])
        print(name, reason or program["figures"])
        BUDGETS.write_text(json.dumps(programs, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
