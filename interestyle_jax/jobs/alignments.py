"""The job behind `interestyle align`: photographs in, faces aligned as in FFHQ out."""

import concurrent.futures
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from interestyle_jax.data.images import encode_png, read_image, save_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.jobs.aligned_faces import AlignedFace, Alignment, Faces, tell_of_several
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import MAX_WITHOUT_FACE, Finished, ImageJob, Item, Result, RunOptions
from interestyle_jax.jobs.pipeline import default_workers
from interestyle_jax.jobs.run import run_job
from interestyle_jax.photos.ffhq_alignment import LARGEST, SMALLEST
from interestyle_jax.photos.quads import quad_side

# Apart from the faces: their folder may be the input of another command.
SHEET = "overlays/sheet_000.png"
REPORT = "alignment.json"
# A thread takes up to 1.2 GB.
MOST_WORKERS = 8
# The sheet shows this many images, in rows of so many.
SHEET_IMAGES, SHEET_COLUMNS, SHEET_CELL = 64, 4, 192
QUAD_COLOUR = (255, 0, 60)


def align_files(
    source: str | Path,
    out: str | Path,
    *,
    size: int = 1024,
    landmarks: str = "litert",
    dlib_file: str | Path | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Aligns the face of a photograph, or of every photograph of a folder.

    Writes NAME.png for every photograph with a face, then `alignment.json` (quads, landmarks,
    scores, and what was skipped and why) and `overlays/sheet_000.png` (the first 64 with their
    quads, and aligned). The same call continues after a stop, see `run_job`.

    Args:
      source: image file or folder.
      out: folder, made where missing.
      size: side of the aligned images.
      landmarks: "litert" or "dlib".
      dlib_file: dlib's landmark file, for "dlib".
      run: see `RunOptions`; of the photographs 0.5 may be without a face, threads are at most 8.

    Returns:
      The report, as in `alignment.json`.

    Raises:
      InputError: no or colliding images, too many skipped ones, a size outside of 16 ... 2048,
        missing packages or files, or an `out` that cannot be used.
      MachineError: the disk is full or fails.
    """
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size: {size}, expected {SMALLEST} to {LARGEST}")
    files = ImageFiles(source)
    faces = Faces(Alignment(landmarks=landmarks, dlib_file=dlib_file), size=size)
    return run_job(AlignmentJob(faces, source), files, Path(out), **run)


class AlignmentJob(ImageJob):
    """Photographs to aligned faces."""

    command = "align"
    own_files = (REPORT, SHEET)
    report_file = REPORT
    # A larger share of images without a face is an error: the folder is likely another one.
    max_skipped = MAX_WITHOUT_FACE
    most_workers = MOST_WORKERS

    def __init__(self, faces: Faces, source: str | Path):
        """Declares the alignment of the images of `source`."""
        self._faces = faces
        own = {name: faces.alignment.options()[name] for name in ("landmarks", "dlib_file")}
        self.options = {"input": str(Path(source).absolute()), "size": faces.size, **own}

    def outputs(self, name: str) -> tuple[str, ...]:
        """NAME.png."""
        return (f"{name}.png",)

    def load(self, item: Item) -> AlignedFace:
        """The aligned face."""
        return self._faces.align(item.source)

    def save(self, item: Item, loaded: AlignedFace, row: None) -> Result:
        """The file of a face, and its entry of the report."""
        del row
        facts = {
            "source_size": list(loaded.photo_size),
            "quad": loaded.quad.round(3).tolist(),
            "quad_side": round(quad_side(loaded.quad), 3),
            "points": loaded.face.points.round(3).tolist(),
            "score": round(loaded.face.score, 4),
            "num_faces": loaded.num_faces,
        }
        return Result({f"{item.name}.png": encode_png(loaded.image)}, {"entry": facts})

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws the sheet."""
        records = list(finished.records)
        with concurrent.futures.ThreadPoolExecutor(min(default_workers(), MOST_WORKERS)) as pool:
            shown = pool.map(lambda record: _pair(out, record), records[:SHEET_IMAGES])
            pairs = [pair for pair in shown if pair]
        if pairs:
            (out / SHEET).parent.mkdir(exist_ok=True)
            save_image(out / SHEET, _sheet(pairs))
        tell_of_several({r["file"]: r["entry"]["num_faces"] for r in records})
        return {
            "size": self._faces.size,
            "landmarks": self._faces.alignment.landmarks,
            "images": {r["name"]: {"source": r["file"], **r["entry"]} for r in records},
        }


def _pair(out: Path, record: dict[str, Any]) -> list[np.ndarray]:
    """A photograph with its quad, and its face, small; nothing where the photograph is gone."""
    try:
        photo = read_image(record["file"])
    except InputError:
        return []
    face = Image.fromarray(read_image(out / f"{record['name']}.png"))
    face.thumbnail((SHEET_CELL, SHEET_CELL), Image.Resampling.BOX, reducing_gap=None)
    images = _outlined(photo, np.array(record["entry"]["quad"])), face
    return [to_float(np.asarray(image)) for image in images]


def _outlined(photo: np.ndarray, quad: np.ndarray) -> Image.Image:
    """The photograph small, with its quad drawn over it, on grey where the quad reaches outside."""
    size = np.array(photo.shape[1::-1])
    low = np.minimum(np.floor(quad.min(0)), 0)
    high = np.maximum(np.ceil(quad.max(0)) + 1, size)
    border = tuple(int(x) for x in (*-low, *(high - size)))
    image = ImageOps.expand(Image.fromarray(photo), border, (128, 128, 128))
    scale = SHEET_CELL / max(image.size)
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)
    corners = [tuple(corner) for corner in (quad + 0.5 - low) * scale]
    ImageDraw.Draw(small).line([*corners, corners[0]], QUAD_COLOUR, width=2)
    return small


def _sheet(pairs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of pairs: a photograph with its quad, and the face aligned."""
    columns = min(SHEET_COLUMNS, len(pairs))
    white = [np.ones((1, 1, 3), np.float32)] * 2
    filled = [*pairs, *[white] * (-len(pairs) % columns)]
    rows = [
        [image for pair in filled[i : i + columns] for image in pair]
        for i in range(0, len(filled), columns)
    ]
    return grids.draw_grid(rows, ["photograph", "aligned"] * columns)
