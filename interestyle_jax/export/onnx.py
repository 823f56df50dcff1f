"""Programs as ONNX, by jax2onnx in a process and, where needed, an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float
from safetensors.numpy import save_file

from interestyle_jax.errors import InputError, MachineError, file_error
from interestyle_jax.export import onnx_child
from interestyle_jax.export.program import Recipe
from interestyle_jax.json_file import write_json

ENVIRONMENT = (
    "python -m venv onnx-env && onnx-env/bin/pip install jax2onnx jaxtyping safetensors pillow"
)


def to_onnx(
    folder: Path,
    recipe: Recipe,
    variables: Mapping[str, Any],
    check: Sequence[Float[np.ndarray, "B ..."]],
    *,
    batch: int | None,
    metadata: Mapping[str, str],
    python: str | os.PathLike | None = None,
) -> dict[str, Float[np.ndarray, "..."]]:
    """Writes `folder`/program.onnx and runs it once by onnxruntime.

    Args:
      folder: an empty folder for what passes between the processes.
      recipe: as `program.build`.
      variables: as `program.build`.
      check: inputs, [B, ...] each, to run the file on.
      batch: rows of its inputs, or None for any number.
      metadata: words for the file's properties.
      python: an interpreter that has jax2onnx; None: this one.

    Returns:
      {name: array}, what onnxruntime made of `check`.

    Raises:
      InputError: no such interpreter, it lacks jax2onnx, or jax2onnx cannot convert the program.
      MachineError: the process was killed, or memory or disk are full.
    """
    write_json(
        folder / "recipe.json",
        {"recipe": recipe._asdict(), "batch": batch, "metadata": dict(metadata)},
    )
    arrays = flatten_dict(jax.device_get(dict(variables)), sep="/")
    save_file({k: np.asarray(x) for k, x in arrays.items()}, folder / "variables.safetensors")
    inputs: dict[str, Any] = {str(i): value for i, value in enumerate(check)}
    np.savez(folder / "check.npz", **inputs)
    command = [os.fspath(python or sys.executable), "-P", onnx_child.__file__, os.fspath(folder)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    try:
        done = subprocess.run(
            command,
            env=environment | {"JAX_PLATFORMS": "cpu"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise file_error(error, f"{command[0]}: cannot be started") from error
    lines = done.stderr.strip().splitlines() or ["no message"]
    if done.returncode == onnx_child.MISSING:
        raise InputError(
            f"{command[0]}: has no {lines[-1]}, which --format=onnx needs; make an environment "
            f"for it ({ENVIRONMENT}) and give --onnx-python=onnx-env/bin/python"
        )
    if done.returncode < 0:
        raise MachineError(f"{command[0]}: was killed by signal {-done.returncode}")
    if done.returncode:
        raise file_error(RuntimeError(lines[-1]), f"jax2onnx cannot convert {recipe.what}")
    with np.load(folder / "outputs.npz") as file:
        return {name: file[name] for name in file.files}
