"""The command `interestyle align`: photographs in, faces aligned as in FFHQ out."""

import concurrent.futures
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from interestyle_jax.commands.input_pictures import input_pictures
from interestyle_jax.data.pictures import read_picture, save_picture
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.photos.alignment import LARGEST, SMALLEST, align
from interestyle_jax.photos.landmarks import Face, Landmarker, find_face, make_landmarker
from interestyle_jax.photos.quads import quad_side

# Apart from the faces: their folder may be the input of another command.
SHEET = "overlays/sheet_000.png"
# A larger share of pictures without a face is an error: the folder is likely another one.
MAX_SKIPPED = 0.5
MOST_WORKERS = 8
MOST_TOLD = 10
# The sheet shows this many pictures, in rows of so many.
SHEET_PICTURES, SHEET_COLUMNS, SHEET_CELL = 64, 4, 192
QUAD_COLOUR = (255, 0, 60)


@dataclasses.dataclass(frozen=True)
class FoundFace:
    """The face of a file that will be aligned.

    Attributes:
      file: the photograph.
      face: its landmarks.
      num_faces: how many were found.
    """

    file: Path
    face: Face
    num_faces: int


def align_files(
    source: str | Path,
    out: str | Path,
    *,
    size: int = 1024,
    landmarks: str = "litert",
    dlib_file: str | Path | None = None,
    workers: int | None = None,
    command: Sequence[str] = (),
) -> dict:
    """Aligns the face of a photograph, or of every photograph of a folder.

    Writes NAME.png for every photograph with a face, `alignment.json` (quads, landmarks, scores,
    and what was skipped and why) and `overlays/sheet_000.png` (the first 64 with their quads, and
    aligned). The files appear together at the end, or not at all; others in `out` stay.

    Args:
      source: picture file or folder.
      out: folder, made where missing.
      size: side of the aligned pictures.
      landmarks: "litert" or "dlib".
      dlib_file: dlib's landmark file, for "dlib".
      workers: threads; None takes a thread a core, at most 8.
      command: the command line, for the report.

    Returns:
      The report, as in `alignment.json`.

    Raises:
      InputError: no or colliding pictures, no face in more than half of them, a size outside of
        16 ... 2048, missing packages or files.
    """
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size: {size}, expected {SMALLEST} to {LARGEST}")
    files = input_pictures(source, out)
    landmarker = make_landmarker(landmarks, dlib_file=dlib_file)
    started = time.perf_counter()
    with output_folder(Path(out)) as folder:
        shown = frozenset(files[:SHEET_PICTURES])

        def run(file: Path):
            return _align_file(file, landmarker, size=size, folder=folder, shown=file in shown)

        done, skipped = _each(files, run, workers=workers, title="align")
        entries = {name: entry for name, entry, _ in done}
        (folder / SHEET).parent.mkdir()
        save_picture(folder / SHEET, _sheet([pair for *_, pair in done if pair]))
        report = {
            "status": "done",
            "num_images": len(done),
            "num_skipped": len(skipped),
            "size": size,
            "landmarks": landmarks,
            "pictures": entries,
            "skipped": skipped,
            "seconds": round(time.perf_counter() - started, 3),
            "versions": library_versions(),
            "command": list(command),
        }
        text = json.dumps(report, indent=1) + "\n"
        (folder / "alignment.json").write_text(text, encoding="utf-8")
    tell({entry["source"]: entry["num_faces"] for entry in entries.values()}, skipped)
    return report


def find_faces(
    files: Sequence[Path], landmarker: Landmarker, *, workers: int | None = None
) -> tuple[list[FoundFace], dict[str, str]]:
    """The faces of photographs, in their order, and {file: reason} of those without one.

    Raises InputError where more than half have none or cannot be read.
    """
    run = functools.partial(_find, landmarker=landmarker)
    return _each(files, run, workers=workers, title="faces")


def tell(num_faces: Mapping[str, int], skipped: Mapping[str, str]) -> None:
    """Says on stderr which photographs were skipped, and where one of several faces was chosen.

    Of each kind, the first MOST_TOLD.
    """
    missing = [f"interestyle: skipped: {reason}" for reason in skipped.values()]
    several = [
        f"interestyle: notice: {file}: {count} faces, took the largest"
        for file, count in num_faces.items()
        if count > 1
    ]
    for kind in (missing, several):
        more = [f"interestyle: ... and {len(kind) - MOST_TOLD} more, as the report says"]
        for line in kind[:MOST_TOLD] + (more if len(kind) > MOST_TOLD else []):
            print(line, file=sys.stderr)


def _find(file: Path, landmarker: Landmarker) -> FoundFace:
    return FoundFace(file, *find_face(read_picture(file), landmarker, name=str(file)))


def _align_file(
    file: Path, landmarker: Landmarker, *, size: int, folder: Path, shown: bool
) -> tuple[str, dict, list[np.ndarray]]:
    """Writes the aligned face; returns its name, its entry, and its cells of the sheet if shown."""
    photo = read_picture(file)
    face, num_faces = find_face(photo, landmarker, name=str(file))
    try:
        aligned, quad = align(photo, face.points, size=size)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    save_picture(folder / f"{file.stem}.png", aligned)
    entry = {
        "source": str(file),
        "source_size": list(photo.shape[1::-1]),
        "quad": quad.round(3).tolist(),
        "quad_side": round(quad_side(quad), 3),
        "points": face.points.round(3).tolist(),
        "score": round(face.score, 4),
        "num_faces": num_faces,
    }
    return file.stem, entry, [_outlined(photo, quad), _thumbnail(aligned)] if shown else []


def _each(
    files: Sequence[Path], run: Callable, *, workers: int | None, title: str
) -> tuple[list, dict[str, str]]:
    """run(file) of every file, and {file: reason} where it raised InputError."""
    results, skipped = [], {}
    workers = workers or min(os.cpu_count() or 1, MOST_WORKERS)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(run, file) for file in files]
        try:
            for file, task in zip(files, tqdm(tasks, unit="picture", desc=title), strict=True):
                try:
                    results.append(task.result())
                except InputError as error:
                    skipped[str(file)] = str(error)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if len(skipped) > MAX_SKIPPED * len(files):
        first = next(iter(skipped.values()))
        if len(files) == 1:
            raise InputError(first)
        raise InputError(f"{len(skipped)} of {len(files)} pictures have no usable face: {first}")
    return results, skipped


def _outlined(photo: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """The photograph small, with its quad drawn over it, on grey where the quad reaches outside."""
    height, width = photo.shape[:2]
    low = np.minimum(np.floor(quad.min(0)), 0)
    high = np.maximum(np.ceil(quad.max(0)) + 1, (width, height))
    scale = SHEET_CELL / max(high - low)
    size = tuple(max(1, round(x)) for x in (high - low) * scale)
    canvas = Image.new("RGB", size, (128, 128, 128))
    small = tuple(max(1, round(x * scale)) for x in (width, height))
    reduced = Image.fromarray(photo).resize(small, Image.Resampling.BOX)
    canvas.paste(reduced, tuple(int(x) for x in np.rint(-low * scale)))
    corners = [tuple(corner) for corner in (quad + 0.5 - low) * scale]
    ImageDraw.Draw(canvas).line([*corners, corners[0]], QUAD_COLOUR, width=2)
    return np.asarray(canvas)


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    size = (min(SHEET_CELL, picture.shape[0]),) * 2
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _sheet(cells: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of pairs: a photograph with its quad, and the face aligned."""
    columns = max(min(SHEET_COLUMNS, len(cells)), 1)
    white = np.full((1, 1, 3), 255, np.uint8)
    flat = [picture for pair in cells for picture in pair]
    flat += [white] * (-len(flat) % (2 * columns))
    flat = [picture.astype(np.float32) / 127.5 - 1 for picture in flat]
    rows = [flat[i : i + 2 * columns] for i in range(0, len(flat), 2 * columns)]
    return grids.draw_grid(rows, ["photograph", "aligned"] * columns)
