"""Weight directories as files that run without this package."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.export import onnx
from interestyle_jax.export.program import PARTS, WHATS, Recipe, build
from interestyle_jax.export.stablehlo import run_stablehlo, to_stablehlo
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.inversion.resize import crop_to_shape
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
    onnx_python: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Writes what a model does as one file, runs the file, and compares it with the model.

    Args:
      weights: a weight directory, or a name that ships with the package.
      out: the file to write; its folder is made.
      format: "stablehlo" (read by `jax.export.deserialize`, for CPU, CUDA and TPU) or "onnx".
      what: "invert" (x [B, H, W, 3], images of the encoder's input size, in [-1, 1], to w_plus
        [N, B, L, D] and images [N, B, R, R, 3]), "synthesize" (w_plus [B, L, D] to images
        [B, R, R, 3]) or "encode" (x [B, H, W, C] to delta [B, L, D]).
      batch: rows B of the input; None: any number.
      num_iterations: N of "invert", as in `Model.invert`.
      onnx_python: an interpreter that has jax2onnx, for "onnx"; None: this one.

    Returns:
      {"format", "what", "batch", "input": {name: shape}, "bytes", "difference": {output: largest
      difference to the model's}, "relative_difference": the same over its largest value}.

    Raises:
      InputError: unknown format or `what`, a part is missing, `out` exists, jax2onnx is missing or
        cannot convert the program, or the file's results are not the model's.
      MachineError: disk or memory fail.
    """
    out = Path(out).expanduser()
    if format not in FORMATS:
        raise InputError(f"format: {format!r}, expected one of {', '.join(FORMATS)}")
    if what not in WHATS:
        raise InputError(f"what: {what!r}, expected one of {', '.join(WHATS)}")
    if num_iterations is not None and what != "invert":
        raise InputError(f"num_iterations: {num_iterations} for {what}, which is no iteration")
    if os.path.lexists(out):
        raise InputError(f"{out}: already exists, give a new file")
    model = load(weights)
    recipe, variables = _recipe(model, what, num_iterations)
    value = _check_input(model, what, CHECK_ROWS if batch is None else batch)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, f"{out.parent}: cannot be made") from error
    program = build(recipe, variables)
    with unfinished_folder(out.parent, name=out.name) as folder:
        if format == "onnx":
            made = folder / "program.onnx"
            metadata = {"weights": digest(weights), "licence": model.metadata["licence"]}
            results = onnx.to_onnx(
                *(folder, recipe, variables, value),
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
            results = run_stablehlo(made.read_bytes(), value)
        report = {
            "format": format,
            "what": what,
            "batch": batch,
            "input": {program.input_name: ["batch" if batch is None else batch, *program.row]},
            "bytes": made.stat().st_size,
            **_compare(_model_results(model, what, value, num_iterations), results, out),
        }
        sync(made)
        os.rename(made, out)
    sync_folder(out.parent)
    return report


def _recipe(model: Model, what: str, num_iterations: int | None) -> tuple[Recipe, dict[str, Any]]:
    """What `program.build` takes; raises ValueError naming a part that is missing."""
    if what == "invert":
        model.require_inversion()
        num_iterations = model.iterations(num_iterations)
    networks = [part for part in PARTS[what] if part != "w_avg"]
    for part in networks:
        model.network(part)
    architectures = {part: model.metadata["architectures"][part] for part in networks}
    shape = (0, 0) if what == "synthesize" else model.input_shape
    variables = {part: model.variables[part] for part in PARTS[what]}
    if what == "invert":
        # The same for all images.
        image_0 = model.synthesize(model.mean_latent())
        variables["image_0"] = crop_to_shape(image_0, shape)
    return Recipe(what, architectures, num_iterations or 1, shape), variables


def _check_input(model: Model, what: str, rows: int) -> Float[np.ndarray, "B ..."]:
    """An input to compare the file with the model by: [B, H, W, C], or latents [B, L, D]."""
    rng = np.random.default_rng(0)
    if what == "synthesize":
        spread = rng.normal(size=(rows, *model.latents_shape))
        mean = model.mean_latent(rows) if "w_avg" in model.variables else 0
        return np.asarray(spread + mean, np.float32)
    channels = 3 if what == "invert" else model.network("encoder").input_channels
    return rng.uniform(-1, 1, (rows, *model.input_shape, channels)).astype(np.float32)


def _model_results(
    model: Model, what: str, value: np.ndarray, num_iterations: int | None
) -> dict[str, np.ndarray]:
    if what == "invert":
        return jax.device_get(model.invert(value, num_iterations)._asdict())
    if what == "encode":
        return {"delta": jax.device_get(model.encode(value))}
    return {"images": jax.device_get(model.synthesize(value))}


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
