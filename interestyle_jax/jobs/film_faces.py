"""The first stage of a film: where its frames show a face."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.jobs.film_frames import film_path, frame_name
from interestyle_jax.jobs.job import Finished, ImageJob, Item, Result
from interestyle_jax.photos.ffhq_alignment import face_quad
from interestyle_jax.photos.landmarks import Landmarker, find_face
from interestyle_jax.video.films import Film, FrameReader

# A thread takes up to 1.2 GB.
MOST_WORKERS = 8


class FilmFacesJob(ImageJob):
    """Frames to quads of faces; a frame without a face is none that is skipped."""

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
        """The quad of the frame's face, or None."""
        pixels = self._reader(int(item.name))
        try:
            face, count = find_face(pixels, self._landmarker, name=item.name)
            return {"quad": face_quad(face.points).tolist(), "num_faces": count}
        except InputError:
            return {"quad": None, "num_faces": 0}

    def save(self, item: Item, loaded: dict[str, Any], row: None) -> Result:
        """What was found, for the report."""
        del item, row
        return Result({}, loaded)

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Lists the quads."""
        del out
        records = list(finished.records)
        return {
            "quads": {r["name"]: r["quad"] for r in records if r["quad"] is not None},
            "several_faces": [r["name"] for r in records if r["num_faces"] > 1],
        }


def quads_of(report: dict[str, Any], film: Film) -> Float[np.ndarray, "n 4 2"]:
    """The quads of a `FilmFacesJob`'s report: [n, 4, 2], NaN where no face was found."""
    quads = np.full((len(film), 4, 2), np.nan)
    for i in range(len(film)):
        found = report["quads"].get(frame_name(i))
        if found is not None:
            quads[i] = found
    return quads
