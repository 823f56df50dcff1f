"""The stages of a film, each an image job in a folder of its own."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.identity import load_identity
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.film_composition import Embeddings, Placing, write_films
from interestyle_jax.jobs.film_faces import Found, find_faces
from interestyle_jax.jobs.film_frames import FilmFrames, FrameInputs, film_path, frame_name
from interestyle_jax.jobs.film_inversions import FrameInversionJob, MaskOf, smooth_latents
from interestyle_jax.jobs.film_masks import frame_masks
from interestyle_jax.jobs.film_smoothing import Smoothing, latent_jitter, quad_jitter
from interestyle_jax.jobs.film_tuning import Tuning, tune_film
from interestyle_jax.jobs.job import RunOptions
from interestyle_jax.jobs.kept_region import Keep
from interestyle_jax.jobs.latents import JOINED, LatentFile
from interestyle_jax.jobs.pipeline import default_workers
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.shard import WHOLE
from interestyle_jax.json_file import write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.parallel.sharding import local_mesh
from interestyle_jax.photos.landmarks import Landmarker, make_landmarker
from interestyle_jax.photos.paste_back import check_edge
from interestyle_jax.video.film_writer import film_ending
from interestyle_jax.video.films import Film, FrameReader, scan_film
from interestyle_jax.video.metrics import temporal_identity
from interestyle_jax.video.scenes import runs_of

# Proportions of a film and an encoder's input that differ by more are not the same.
SAME_PROPORTIONS = 0.02
INVERSIONS, OWN_FILES = "inversions", ("strip.png", "report.json")


class FilmOptions(RunOptions, total=False):
    """What `invert_film` and `edit_film` take beside weights, film and folder, in one place.

    Attributes:
      num_iterations, dtype, batch_size: as of `invert_files`.
      alignment: how faces are found and pasted; None takes frames as they are.
      smoothing: None: the defaults.
      tuning: one generator tuned on all frames, in the interest region where faces are pasted by
        it; None: the weights' own.
      landmarker: finds faces in place of the alignment's.
      paste_mask: interest masks in place of the alignment's provider.
    """

    num_iterations: int | None
    dtype: str
    batch_size: int | None
    alignment: Alignment | None
    smoothing: Smoothing | None
    tuning: Tuning | None
    landmarker: Landmarker | None
    paste_mask: MaskOf | None


class FilmStages:
    """The stages of a film in its output folder."""

    def __init__(
        self,
        weights: str,
        source: str | Path,
        out: str | Path,
        *,
        num_iterations: int | None = None,
        dtype: str = "float32",
        batch_size: int | None = None,
        alignment: Alignment | None = None,
        smoothing: Smoothing | None = None,
        tuning: Tuning | None = None,
        landmarker: Landmarker | None = None,
        paste_mask: MaskOf | None = None,
        keep: Keep | None = None,
        identity: tuple[str | Path | None, str | Path | None] = (None, None),
        **run: Unpack[RunOptions],
    ):
        """Looks at the film, and loads what finds faces.

        Args:
          weights, source, out: as of `films.invert_film`.
          num_iterations, dtype, batch_size, alignment, smoothing, tuning, landmarker, paste_mask,
            run: see `FilmOptions`.
          keep: as of `edits.edit_files`.
          identity: weights of an embedder and a face detector, or None.

        Raises:
          InputError: what one of them lacks.
        """
        self.started = time.perf_counter()
        self.weights, self.out, self.run, self.alignment = weights, Path(out), run, alignment
        self.num_iterations, self.dtype, self.batch_size = num_iterations, dtype, batch_size
        self.smoothing, self.tuning = smoothing or Smoothing(), tuning or Tuning()
        if run.get("shard", WHOLE).count > 1:
            raise InputError("--shard: a film is done by one process, on all its devices")
        self.smoothing.check()
        self.tuning.check()
        self.model: Model = load(weights, dtype=dtype, mesh=local_mesh())
        self.model.require_inversion()
        self.rows = self.smoothing.rows(self.model.latents_shape[0])
        self.identity = load_identity(*identity, mesh=self.model.mesh)
        self.masks = frame_masks(
            self.model, alignment, paste_mask, keep, tuned=self.tuning.passes > 0
        )
        self.film: Film = scan_film(source)
        self.landmarker = landmarker
        if alignment is None:
            self._check_proportions()
        else:
            check_edge(alignment.feather, alignment.shape)
            height, width = self.model.input_shape
            if height != width:
                raise InputError(f"--align: the weights see {height} x {width} pixels, no squares")
            if self.landmarker is None:
                self.landmarker = make_landmarker(
                    alignment.landmarks, dlib_file=alignment.dlib_file
                )

    def _check_proportions(self) -> None:
        (height, width), film = self.model.input_shape, self.film
        own, asked = film.width / film.height, width / height
        if abs(own / asked - 1) > SAME_PROPORTIONS:
            raise InputError(
                f"{film.path}: frames of {film.width} x {film.height} pixels, expected --align, or "
                f"a film of aligned images of proportions {width} : {height}"
            )

    def check_out(self, names: Iterable[str]) -> None:
        """Raises InputError where `out` holds files that are not of an earlier call."""
        own = [f"{name}{film_ending(self.film)}" for name in names]
        for name in own:
            path = self.out / name
            if path.exists() and path.samefile(self.film.path):
                raise InputError(f"{path}: is the input, choose another --out")
            # Of a process that was killed.
            for unfinished in self.out.glob(f".{name}.*"):
                unfinished.unlink(missing_ok=True)
        others = [path.name for path in self.out.glob("progress*.jsonl")]
        if not (self.out / INVERSIONS).exists():
            others += [n for n in (*own, JOINED, *OWN_FILES) if (self.out / n).exists()]
        if others:
            raise InputError(
                f"{self.out / others[0]}: exists already and is not of this command, choose "
                "another --out"
            )

    def latents(self) -> Path:
        """Finds faces, inverts, smooths; the folder of the smoothed latents. Raises InputError."""
        film = self.film
        self.found = Found(None, None, film.cuts, {})
        if self.alignment is not None:
            self.found = find_faces(
                film, self.landmarker, self.alignment, self.out, self.smoothing, self.run
            )
        frames = FilmFrames(film, self.found.quads)
        with FrameReader(film) as reader:
            inputs = FrameInputs(
                self.model, reader, self.found.quads, keep_pixels=bool(self.masks.functions)
            )
            self.size = inputs.size
            job = FrameInversionJob(
                self.model,
                frames,
                film.path,
                num_iterations=self.model.iterations(self.num_iterations),
                batch_size=self.batch_size,
                inputs=inputs,
                masks=self.masks.functions,
                mask_options=self.masks.options,
            )
            self.inverted = run_job(job, frames, self.out / INVERSIONS, **self.run)
        self.raw_latents = LatentFile(self.out / INVERSIONS)
        self.smoothed = smooth_latents(
            self.raw_latents,
            self.out,
            seconds=film.seconds,
            cuts=self.found.cuts,
            sigma=self.smoothing.latents,
            rows=self.rows,
        )
        return self.out

    def drawing_weights(self) -> str:
        """The weights that draw the smoothed latents: those given, or with a tuned generator."""
        if not self.tuning.passes:
            return self.weights
        folder = tune_film(
            self.model,
            self.tuning,
            self.smoothed,
            self.out / INVERSIONS,
            self.out,
            mask="paste" in self.masks.functions,
        )
        return str(folder)

    def films(
        self, names: dict[str, str], draw: Callable[[Path], dict[str, Any]]
    ) -> dict[str, Any]:
        """Draws, and writes films and the report.

        Args:
          names: of the films, by the label of their column.
          draw: makes the job of the drawn images in a folder; its report.

        Raises:
          InputError: a film that cannot be written.
        """
        film, out, found = self.film, self.out, self.found
        drawn = draw(out / "frames")
        paths = {label: out / f"{name}{film_ending(film)}" for label, name in names.items()}
        quads = None
        if found.quads is not None:
            # As they were cut: `align` moves them a little where it shrinks a frame first.
            quads = np.full((len(film), 4, 2), np.nan)
            for name, quad in self.inverted["quads"].items():
                quads[int(name)] = quad
        placing = Placing(
            quads, self.alignment, out / INVERSIONS, tuple(self.masks.functions), self.size
        )
        embeddings = write_films(
            paths,
            out / "frames",
            film,
            placing,
            workers=self.run.get("workers") or default_workers(),
            strip=out / "strip.png",
            identity=self.identity,
        )
        known = set(self.smoothed.names)
        names_of_all = [frame_name(i) for i in range(len(film))]
        runs = runs_of([name in known for name in names_of_all], found.cuts)
        both = {"found": self.raw_latents, "smoothed": self.smoothed}
        jitters: dict[str, Any] = {"latents": {k: latent_jitter(f, runs) for k, f in both.items()}}
        if found.raw is not None:
            jitters["quads"] = quad_jitter(found.raw, found.quads, found.cuts)
        report = {
            "status": "done",
            "num_images": len(known),
            "num_frames": len(film),
            "size": [film.width, film.height],
            "frame_rate": str(film.frame_rate),
            "seconds_of_film": round(film.length, 6),
            "num_sounds": film.num_sounds,
            "cuts": list(found.cuts),
            "as_they_were": [name for name in names_of_all if name not in known],
            "interpolated": found.interpolated(),
            "several_faces": found.report.get("several_faces", []),
            "films": [path.name for path in paths.values()],
            "smoothing": dataclasses.asdict(self.smoothing) | {"shared_rows": list(self.rows)},
            "tuning": dataclasses.asdict(self.tuning),
            "jitter": jitters,
            "temporal_identity": _identities(embeddings, runs),
            INVERSIONS: {
                key: self.inverted[key] for key in ("num_iterations", "w_plus_shape", "skipped")
            },
            "drawn": {key: drawn.get(key) for key in ("edits", "id_similarity", "attributes")},
            "weights": str(self.model.directory),
            "input": film_path(film),
            "seconds": round(time.perf_counter() - self.started, 3),
            "versions": library_versions(),
            "command": list(self.run.get("command", ())),
        }
        write_json(out / "report.json", report)
        return report


def _identities(embeddings: Embeddings | None, runs: Sequence[range]) -> dict[str, Any] | None:
    if embeddings is None:
        return None
    return {
        label: temporal_identity(embeddings.source[label], edited, runs)
        for label, edited in embeddings.edited.items()
    }
