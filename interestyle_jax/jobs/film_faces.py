"""The first stage of a film: where its frames show a face."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.film_frames import FilmFrames, film_path, frame_name
from interestyle_jax.jobs.film_smoothing import Smoothing
from interestyle_jax.jobs.job import Finished, ImageJob, Item, Result, RunOptions
from interestyle_jax.jobs.run import run_job
from interestyle_jax.photos.ffhq_alignment import face_quad
from interestyle_jax.photos.landmarks import Landmarker, main_face
from interestyle_jax.video.films import Film, FrameReader
from interestyle_jax.video.smoothing import choose_quads, follow_quads

# A thread takes up to 1.2 GB.
MOST_WORKERS = 8


class Found(NamedTuple):
    """Faces of a film: quads [n, 4, 2] as found and as followed, or None of whole frames."""

    raw: np.ndarray | None
    quads: np.ndarray | None
    cuts: tuple[int, ...]
    report: dict[str, Any]

    def interpolated(self) -> list[str]:
        """Names of frames whose face was not found, but followed."""
        if self.raw is None:
            return []
        there, here = (np.isfinite(q).all((1, 2)) for q in (self.quads, self.raw))
        return [frame_name(i) for i in np.flatnonzero(there & ~here).tolist()]


class FilmFacesJob(ImageJob):
    """Frames to quads of all their faces; a frame without a face is none that is skipped."""

    command = "invert: faces of a film"
    most_workers = MOST_WORKERS

    def __init__(self, film: Film, reader: FrameReader, landmarker: Landmarker, given: Any):
        """Declares the search.

        Args:
          film: the film.
          reader: its frames.
          landmarker: finds faces.
          given: which landmarks these are, as JSON.
        """
        self._film, self._reader, self._landmarker = film, reader, landmarker
        self.options = {"input": film_path(film), "landmarks": given}

    def outputs(self, name: str) -> tuple[str, ...]:
        """None."""
        del name
        return ()

    def load(self, item: Item) -> dict[str, Any]:
        """The quads of the frame's faces, the first that of `main_face`."""
        pixels = self._reader(int(item.name))
        faces = self._landmarker(pixels)
        if not faces:
            return {"quads": []}
        first = main_face(faces, pixels.shape[1::-1])
        in_order = sorted(faces, key=lambda face: face is not first)
        return {"quads": [face_quad(face.points).tolist() for face in in_order]}

    def save(self, item: Item, loaded: dict[str, Any], row: None) -> Result:
        """What was found, for the report."""
        del item, row
        return Result({}, loaded)

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Lists the quads."""
        del out
        quads = {record["name"]: record["quads"] for record in finished.records}
        return {
            "quads": quads,
            "several_faces": [name for name, found in quads.items() if len(found) > 1],
        }


def quads_of(report: dict[str, Any], film: Film, *, max_gap: float) -> Float[np.ndarray, "n 4 2"]:
    """One face's quads of a `FilmFacesJob`'s report: [n, 4, 2], NaN where it was not found.

    See `choose_quads`.
    """
    found = [report["quads"].get(frame_name(i), []) for i in range(len(film))]
    candidates = [np.array(quads).reshape(-1, 4, 2) for quads in found]
    return choose_quads(candidates, film.seconds, film.cuts, max_gap=max_gap)


def find_faces(
    film: Film,
    landmarker: Landmarker,
    alignment: Alignment,
    out: Path,
    smoothing: Smoothing,
    run: RunOptions,
) -> Found:
    """Where a film's faces are, followed over time.

    Args:
      film: the film.
      landmarker: finds faces.
      alignment: which landmarks these are.
      out: of the film; what is found is kept in its folder `faces`.
      smoothing: of the quads.
      run: see `RunOptions`; of the frames all but one may be without a face, or `max_skipped`.

    Raises:
      InputError: there are none, or too few.
    """
    options = {"name": landmarker.name}
    if alignment.dlib_file is not None:
        options["dlib_file"] = str(Path(alignment.dlib_file).absolute())
    with FrameReader(film) as reader:
        job = FilmFacesJob(film, reader, landmarker, options)
        report = run_job(job, FilmFrames(film), out / "faces", **run)
    raw = quads_of(report, film, max_gap=smoothing.max_gap)
    num_faces = int(np.isfinite(raw).all((1, 2)).sum())
    if not num_faces:
        raise InputError(f"{film.path}: no face found in any of {len(film)} frames")
    most_without = run.get("max_skipped")
    if most_without is not None and 1 - num_faces / len(film) > most_without:
        raise InputError(
            f"{film.path}: {len(film) - num_faces} of {len(film)} frames show no face, more "
            f"than --max-skipped={most_without:g} allows"
        )
    quads, cuts = follow_quads(
        raw, film.seconds, film.cuts, strength=smoothing.quads, max_gap=smoothing.max_gap
    )
    return Found(raw, quads, cuts, report)
