"""The command `interestyle invert`: picture files in, inversions and latents out."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from interestyle_jax import __version__
from interestyle_jax.commands.aligned_faces import AlignedFaces, Alignment
from interestyle_jax.commands.input_pictures import input_pictures
from interestyle_jax.data.pictures import read_picture, save_picture
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.inversion.resize import encoder_input
from interestyle_jax.output_folder import output_folder

GRID_ROWS = 16
OWN_FILES = ("grid.png", "latents.npz", "report.json")
# Faces are aligned to the generator's resolution, but not below what encoders see.
SMALLEST_ALIGNED = 256


def invert_files(
    weights: str,
    source: str | Path,
    out: str | Path,
    *,
    num_steps: int | None = None,
    dtype: str = "float32",
    batch_size: int = 8,
    alignment: Alignment | None = None,
    command: Sequence[str] = (),
) -> dict:
    """Inverts a picture, or every picture of a folder, and writes the results to `out`.

    Writes NAME.png (y_hat_N) for every input NAME, `latents.npz` (`names`, `w_plus`
    [n, N, L, D]), `grid.png` (input, y_hat_1 ... y_hat_N and the error of the first 16) and
    `report.json`. The files appear together at the end, or not at all; others in `out` stay.

    With an `alignment` the input is the photograph's face, aligned; photographs without one are
    skipped and told. NAME_pasted.png is the photograph with its inversion pasted back.

    Args:
      weights: name or directory of weights with a generator, an encoder and w_avg.
      source: picture file or folder.
      out: folder, made where missing.
      num_steps: N; None as in `Model.invert`.
      dtype: type of the networks' maps, as in `load`.
      batch_size: pictures a compiled call; the last batch is padded to it.
      alignment: None takes pictures as they are.
      command: the command line, for the report.

    Returns:
      The report.

    Raises:
      InputError: unknown weights, a part missing in them, no or unreadable pictures, names that
        collide, no face in more than half of the photographs, weights that do not see squares, or
        an `out` that cannot be used.
    """
    model = load(weights, dtype=dtype)
    model.require_inversion()
    shape, num_steps = model.input_shape, model.iterations(num_steps)
    endings = ("", "_pasted") if alignment is not None and alignment.paste_back else ("",)
    files = input_pictures(source, out, own_files=OWN_FILES, endings=endings)
    if batch_size < 1:
        raise InputError(f"batch size: {batch_size}, expected a whole number from 1")
    started = time.perf_counter()
    faces = None
    if alignment is not None:
        if shape[0] != shape[1]:
            raise InputError(f"--align: the weights see {shape[0]} x {shape[1]} pixels, no squares")
        size = max(model.resolution, SMALLEST_ALIGNED)
        faces = AlignedFaces(files, alignment, size=size)
        files = faces.files
    batch_size = min(batch_size, len(files))
    latents, timings, rows = [], [], []
    with output_folder(Path(out)) as folder:
        progress = tqdm(range(0, len(files), batch_size), unit="batch", desc="invert")
        for start in progress:
            chunk = files[start : start + batch_size]
            photos = [read_picture(file) for file in chunk]
            crops = photos
            if faces is not None:
                crops = [faces.aligned(*pair) for pair in zip(chunk, photos, strict=True)]
            pictures = np.stack([encoder_input(crop, shape) for crop in crops])
            padding = [(0, batch_size - len(chunk)), (0, 0), (0, 0), (0, 0)]
            begun = time.perf_counter()
            inversion = model.invert(np.pad(pictures, padding, mode="edge"), num_steps)
            images = np.asarray(inversion.images)[:, : len(chunk)]
            timings.append((time.perf_counter() - begun) / len(chunk))
            latents.append(np.asarray(inversion.w_plus)[:, : len(chunk)].swapaxes(0, 1))
            for j, file in enumerate(chunk):
                last = grids.to_uint8(images[-1, j])
                save_picture(folder / f"{file.stem}.png", last)
                if faces is not None:
                    faces.save_pasted(folder, file, photos[j], crops[j], last)
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
        if faces is not None:
            report["alignment"] = faces.report()
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _grid_row(picture: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    small = pool_to(images[-1][None], picture.shape[:2])[0]
    return [picture, *images, grids.error_picture(picture, np.asarray(small))]
