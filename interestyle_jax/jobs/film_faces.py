"""The first stage of a film: where its frames show a face."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.jobs.film_frames import film_path, frame_name
from interestyle_jax.jobs.job import Finished, ImageJob, Item, Result
from interestyle_jax.photos.ffhq_alignment import face_quad
from interestyle_jax.photos.landmarks import Landmarker, main_face
from interestyle_jax.video.films import Film, FrameReader
from interestyle_jax.video.smoothing import choose_quads

# A thread takes up to 1.2 GB.
MOST_WORKERS = 8


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
