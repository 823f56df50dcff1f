"""The command `interestyle invert`: picture files in, inversions and latents out."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from interestyle_jax import __version__
from interestyle_jax.data.pictures import list_pictures, read_picture, save_picture
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.inversion.resize import encoder_input
from interestyle_jax.output_folder import output_folder

GRID_ROWS = 16
OWN_FILES = ("grid.png", "latents.npz", "report.json")


def invert_files(
    weights: str,
    source: str | Path,
    out: str | Path,
    *,
    num_steps: int | None = None,
    dtype: str = "float32",
    batch_size: int = 8,
    command: Sequence[str] = (),
) -> dict:
    """Inverts a picture, or every picture of a folder, and writes the results to `out`.

    Writes NAME.png (y_hat_N) for every input NAME, `latents.npz` (`names`, `w_plus`
    [n, N, L, D]), `grid.png` (input, y_hat_1 ... y_hat_N and the error of the first 16) and
    `report.json`. The files appear together at the end, or not at all; others in `out` stay.

    Args:
      weights: name or directory of weights with a generator, an encoder and w_avg.
      source: picture file or folder.
      out: folder, made where missing.
      num_steps: N; None as in `Model.invert`.
      dtype: type of the networks' maps, as in `load`.
      batch_size: pictures a compiled call; the last batch is padded to it.
      command: the command line, for the report.

    Returns:
      The report.

    Raises:
      InputError: unknown weights, a part missing in them, no or unreadable pictures, names that
        collide, or an `out` that cannot be used.
    """
    model = load(weights, dtype=dtype)
    model.require_inversion()
    shape, num_steps = model.input_shape, model.iterations(num_steps)
    files = _input_files(Path(source), Path(out))
    if batch_size < 1:
        raise InputError(f"batch size: {batch_size}, expected a whole number from 1")
    batch_size = min(batch_size, len(files))
    started = time.perf_counter()
    latents, timings, rows = [], [], []
    with output_folder(Path(out)) as folder:
        progress = tqdm(range(0, len(files), batch_size), unit="batch", desc="invert")
        for start in progress:
            chunk = files[start : start + batch_size]
            pictures = np.stack([encoder_input(read_picture(file), shape) for file in chunk])
            padding = [(0, batch_size - len(chunk)), (0, 0), (0, 0), (0, 0)]
            begun = time.perf_counter()
            inversion = model.invert(np.pad(pictures, padding, mode="edge"), num_steps)
            images = np.asarray(inversion.images)[:, : len(chunk)]
            timings.append((time.perf_counter() - begun) / len(chunk))
            latents.append(np.asarray(inversion.w_plus)[:, : len(chunk)].swapaxes(0, 1))
            for j, file in enumerate(chunk):
                save_picture(folder / f"{file.stem}.png", grids.to_uint8(images[-1, j]))
                if len(rows) < GRID_ROWS:
                    rows.append(_grid_row(pictures[j], images[:, j]))
        names = [file.stem for file in files]
        w_plus = np.concatenate(latents)
        np.savez(folder / "latents.npz", names=np.array(names), w_plus=w_plus)
        labels = ["input", *(grids.iteration_label(i + 1) for i in range(num_steps)), "error"]
        grid = grids.draw_grid(rows, labels, names[: len(rows)])
        save_picture(folder / "grid.png", grid)
        report = {
            "status": "done",
            "num_images": len(files),
            "num_steps": num_steps,
            "inputs": {name: str(file) for name, file in zip(names, files, strict=True)},
            "weights": str(model.directory),
            "input_shape": list(shape),
            "dtype": dtype,
            "resolution": model.resolution,
            "w_plus_shape": list(w_plus.shape),
            "grid_rows": len(rows),
            "batch_size": batch_size,
            "seconds": round(time.perf_counter() - started, 3),
            # The first batch compiles.
            "seconds_per_image": float(np.median(timings[1:])) if len(timings) > 1 else None,
            "versions": {"interestyle_jax": __version__, "jax": jax.__version__},
            "command": list(command),
        }
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _grid_row(picture: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    small = pool_to(images[-1][None], picture.shape[:2])[0]
    return [picture, *images, grids.error_picture(picture, np.asarray(small))]


def _input_files(source: Path, out: Path) -> list[Path]:
    """The pictures to invert, or InputError where their results would collide."""
    files = list_pictures(source)
    for file in files:
        target = out / f"{file.stem}.png"
        if target.name in OWN_FILES:
            raise InputError(f"{file}: its result would be {target.name}, which the command writes")
        if target.exists() and target.samefile(file):
            raise InputError(f"{out}: {target.name} would overwrite its own input")
    return files
