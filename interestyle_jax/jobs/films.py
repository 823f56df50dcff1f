"""The work of `interestyle invert` and `edit` on a film."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from interestyle_jax.editing.bands import choose_rows
from interestyle_jax.inversion.inverter import load
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.edit_inputs import open_inputs
from interestyle_jax.jobs.edit_job import Column, EditJob
from interestyle_jax.jobs.edits import choose_strengths, edit_files, plan_edits, strength_label
from interestyle_jax.jobs.film_inversions import MaskOf
from interestyle_jax.jobs.film_smoothing import Smoothing
from interestyle_jax.jobs.film_stages import FilmStages
from interestyle_jax.jobs.film_tuning import Tuning
from interestyle_jax.jobs.job import RunOptions
from interestyle_jax.jobs.kept_region import Keep
from interestyle_jax.jobs.run import run_job
from interestyle_jax.photos.landmarks import Landmarker

INVERSION = "inversion"


def invert_film(
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
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Inverts a film.

    Writes film.mp4 (or .mov, .mkv, see `film_ending`), `latents.npz` (a smoothed w_plus for each
    frame that was inverted, named by its number), `strip.png` and `report.json`; in `inversions/`
    what `invert_files` leaves of the frames as they are, in `frames/` what the smoothed latents
    draw. With an alignment the faces are pasted back, and a frame without one stays; without it the
    film is one of aligned images. The same call continues after a stop.

    Args:
      weights: as of `invert_files`.
      source: the film.
      out: folder, made where missing.
      num_iterations, dtype, batch_size: as of `invert_files`.
      alignment: how faces are found and pasted; None takes frames as they are.
      smoothing: None: the defaults.
      tuning: one generator tuned on all frames, in the interest region where faces are pasted by
        it; None: the weights' own.
      landmarker: finds faces in place of the alignment's.
      paste_mask: interest masks in place of the alignment's provider.
      run: see `RunOptions`; of the frames all but one may be without a face.

    Returns:
      The report.

    Raises:
      InputError: no film, no face in it, frames of other proportions than the encoder's input, a
        part of a job of several processes, or as `invert_files`.
      MachineError: the disk is full or fails.
    """
    stages = FilmStages(
        weights,
        source,
        out,
        dtype=dtype,
        alignment=alignment,
        smoothing=smoothing or Smoothing(),
        tuning=tuning or Tuning(),
        landmarker=landmarker,
        paste_mask=paste_mask,
        run=run,
    )
    names = {INVERSION: "film"}
    stages.check_out(names.values())
    latents = stages.latents(num_iterations, batch_size)

    def draw(folder: Path) -> dict[str, Any]:
        drawing = stages.drawing_weights(weights)
        model = stages.model
        if drawing != weights:
            model = load(drawing, dtype=dtype, mesh=model.mesh)
        # Tuned generators draw the latents of the one that they were.
        inputs = open_inputs(model, None, latents, other_generator=drawing != weights)
        column = Column(INVERSION, INVERSION, (), ())
        job = EditJob(
            model,
            inputs,
            [column],
            keep=None,
            identity=None,
            batch_size=batch_size,
            options={},
            facts={},
        )
        return run_job(job, inputs.items, folder, **stages.run)

    return stages.films(names, draw)


def edit_film(
    weights: str,
    source: str | Path,
    out: str | Path,
    *,
    edits: Sequence[Any],
    strengths: Sequence[float] | None = None,
    num_iterations: int | None = None,
    dtype: str = "float32",
    batch_size: int | None = None,
    alignment: Alignment | None = None,
    keep: Keep | None = None,
    identity: str | Path | None = None,
    face_detector: str | Path | None = None,
    smoothing: Smoothing | None = None,
    tuning: Tuning | None = None,
    landmarker: Landmarker | None = None,
    paste_mask: MaskOf | None = None,
    rows: Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    absolute: bool = False,
    other_generator: bool = False,
    attributes: str | Path | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Edits a film at several strengths: `invert_film`, whose smoothed latents `edit_files` edits.

    Writes film_STRENGTH.mp4 for every strength, and else what these two leave.

    Args:
      weights, source, out, num_iterations, dtype, batch_size, alignment, smoothing, tuning,
        landmarker, paste_mask, run: as `invert_film`.
      edits, strengths, rows, bands, absolute, other_generator, keep, identity, face_detector,
        attributes: as `edit_files`. The identity network also says how alike frames are among
        themselves.

    Returns:
      The report.

    Raises:
      InputError, MachineError: as these two.
    """
    stages = FilmStages(
        weights,
        source,
        out,
        dtype=dtype,
        alignment=alignment,
        smoothing=smoothing or Smoothing(),
        tuning=tuning or Tuning(),
        landmarker=landmarker,
        paste_mask=paste_mask,
        keep=keep,
        identity=(identity, face_detector),
        run=run,
    )
    # Before anything is inverted.
    rows = choose_rows(rows, bands, stages.model.latents_shape[0])
    planned = plan_edits(
        stages.model, edits, rows=rows, absolute=absolute, other_generator=other_generator
    )
    labels = [strength_label(strength) for strength in choose_strengths(planned, strengths)]
    names = {label: f"film_{label}" for label in labels}
    stages.check_out(names.values())
    latents = stages.latents(num_iterations, batch_size)

    def draw(folder: Path) -> dict[str, Any]:
        drawing = stages.drawing_weights(weights)
        return edit_files(
            drawing,
            folder,
            edits=edits,
            latents=latents,
            strengths=strengths,
            rows=rows,
            absolute=absolute,
            # Tuned generators draw the latents of the one that they were.
            other_generator=other_generator or drawing != weights,
            dtype=dtype,
            batch_size=batch_size,
            identity=identity,
            face_detector=face_detector,
            attributes=attributes,
            **stages.run,
        )

    return stages.films(names, draw)
