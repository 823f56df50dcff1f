"""Weight directories as files that run without this package."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.editing.direction_files import find_direction
from interestyle_jax.editing.directions import Direction
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.export import onnx
from interestyle_jax.export.model_program import model_results, recipe_of, sample_inputs
from interestyle_jax.export.program import WHATS, build
from interestyle_jax.export.stablehlo import run_stablehlo, to_stablehlo
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.unfinished import unfinished_folder
from interestyle_jax.weights import digest
from interestyle_jax.whole_files import sync, sync_folder

FORMATS = ("stablehlo", "onnx")
# Rows of the input that a file for any number of rows is tried with.
CHECK_ROWS = 2
# Of a file's results to the model's, relative to the largest value; about 1e-6 is measured.
LARGEST_DIFFERENCE = 1e-4


def export_weights(
    weights: str | Path,
    out: str | Path,
    *,
    format: str = "stablehlo",
    what: str = "invert",
    batch: int | None = None,
    num_iterations: int | None = None,
    directions: Sequence[str | Path] = (),
    onnx_python: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Writes what a model does as one file, runs the file, and compares it with the model.

    Args:
      weights: a weight directory, or a name that ships with the package.
      out: the file to write; its folder is made.
      format: "stablehlo" (read by `jax.export.deserialize`, for CPU, CUDA and TPU) or "onnx".
      what: "invert" (x [B, H, W, 3], images of the encoder's input size, in [-1, 1], to w_plus
        [N, B, L, D] and images [N, B, R, R, 3]), "synthesize" (w_plus [B, L, D] to images
        [B, R, R, 3]), "encode" (x [B, H, W, C] to delta [B, L, D]) or "edit" (w_plus [B, L, D] and
        strengths [B, E], one a direction, to edited [B, L, D] and images).
      batch: rows B of the inputs; None: any number.
      num_iterations: N of "invert", as in `Model.invert`.
      directions: E names or files of "edit", which the file holds; see `find_direction`.
      onnx_python: an interpreter that has jax2onnx, for "onnx"; None: this one.

    Returns:
      {"format", "what", "batch", "inputs": {name: shape}, "directions": names, "bytes",
      "difference": {output: largest difference to the model's}, "relative_difference": the same
      over its largest value}.

    Raises:
      InputError: unknown format or `what`, a part or direction is missing, `out` exists, jax2onnx
        is missing or cannot convert the program, or the file's results are not the model's.
      MachineError: disk or memory fail.
    """
    out = Path(out).expanduser()
    if format not in FORMATS:
        raise InputError(f"format: {format!r}, expected one of {', '.join(FORMATS)}")
    if what not in WHATS:
        raise InputError(f"what: {what!r}, expected one of {', '.join(WHATS)}")
    if num_iterations is not None and what != "invert":
        raise InputError(f"num_iterations: {num_iterations} for {what}, which is no iteration")
    if bool(directions) != (what == "edit"):
        expected = "at least one" if what == "edit" else f"none for {what}"
        raise InputError(f"directions: {len(directions)} given, expected {expected}")
    if os.path.lexists(out):
        raise InputError(f"{out}: already exists, give a new file")
    model = load(weights)
    found = [_find(direction, model) for direction in directions]
    recipe, variables = recipe_of(model, what, num_iterations, directions=found)
    values = sample_inputs(model, what, CHECK_ROWS if batch is None else batch, directions=found)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, f"{out.parent}: cannot be made") from error
    program = build(recipe, variables)
    with unfinished_folder(out.parent, name=out.name) as folder:
        if format == "onnx":
            made = folder / "program.onnx"
            metadata = {"weights": digest(weights), "licence": model.metadata["licence"]}
            if found:
                metadata["directions"] = ", ".join(direction.name for direction in found)
            results = onnx.to_onnx(
                *(folder, recipe, variables, values),
                batch=batch,
                metadata=metadata,
                python=onnx_python,
            )
        else:
            made = folder / "program"
            try:
                made.write_bytes(to_stablehlo(program, batch))
            except OSError as error:
                raise file_error(error, f"{out}: cannot be written") from error
            results = run_stablehlo(made.read_bytes(), values)
        rows = "batch" if batch is None else batch
        wanted = model_results(model, what, values, num_iterations, directions=found)
        report = {
            "format": format,
            "what": what,
            "batch": batch,
            "inputs": {name: [rows, *row] for name, row in program.inputs.items()},
            "directions": [direction.name for direction in found],
            "bytes": made.stat().st_size,
            **_compare(wanted, results, out),
        }
        sync(made)
        os.rename(made, out)
    sync_folder(out.parent)
    return report


def _find(name_or_file: str | Path, model: Model) -> Direction:
    return find_direction(
        name_or_file,
        model.style_layers,
        w_dim=model.latents_shape[1],
        generator=model.generator_fingerprint,
    )


def _compare(
    expected: dict[str, np.ndarray], found: dict[str, np.ndarray], out: Path
) -> dict[str, dict[str, float]]:
    """The differences of the report; raises InputError where they are too large."""
    difference, relative = {}, {}
    for name, array in expected.items():
        difference[name] = float(np.abs(found[name] - array).max())
        relative[name] = difference[name] / float(np.abs(array).max())
        if not relative[name] <= LARGEST_DIFFERENCE:
            raise InputError(
                f"{out}: not written, its {name} differ from the model's by {relative[name]:.1e} "
                f"of the largest value, expected at most {LARGEST_DIFFERENCE:.0e}"
            )
    return {"difference": difference, "relative_difference": relative}
