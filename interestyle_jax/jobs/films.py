"""The work of `interestyle invert` and `edit` on a film."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from interestyle_jax.editing.bands import choose_rows
from interestyle_jax.inversion.inverter import load
from interestyle_jax.jobs.edit_inputs import open_inputs
from interestyle_jax.jobs.edit_job import Column, EditJob
from interestyle_jax.jobs.edits import choose_strengths, edit_files, plan_edits, strength_label
from interestyle_jax.jobs.film_stages import FilmOptions, FilmStages
from interestyle_jax.jobs.kept_region import Keep
from interestyle_jax.jobs.run import run_job

INVERSION = "inversion"


def invert_film(
    weights: str, source: str | Path, out: str | Path, **options: Unpack[FilmOptions]
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
      options: see `FilmOptions`; of the frames all but one may be without a face.

    Returns:
      The report.

    Raises:
      InputError: no film, no face in it, frames of other proportions than the encoder's input, a
        part of a job of several processes, or as `invert_files`.
      MachineError: the disk is full or fails.
    """
    stages = FilmStages(weights, source, out, **options)
    names = {INVERSION: "film"}
    stages.check_out(names.values())
    latents = stages.latents()

    def draw(folder: Path) -> dict[str, Any]:
        drawing = stages.drawing_weights()
        model = stages.model
        if drawing != weights:
            model = load(drawing, dtype=stages.dtype, mesh=model.mesh)
        # Tuned generators draw the latents of the one that they were.
        inputs = open_inputs(model, None, latents, other_generator=drawing != weights)
        column = Column(INVERSION, INVERSION, (), ())
        job = EditJob(
            model,
            inputs,
            [column],
            keep=None,
            identity=None,
            batch_size=stages.batch_size,
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
    keep: Keep | None = None,
    identity: str | Path | None = None,
    face_detector: str | Path | None = None,
    rows: Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    absolute: bool = False,
    other_generator: bool = False,
    attributes: str | Path | None = None,
    **options: Unpack[FilmOptions],
) -> dict[str, Any]:
    """Edits a film at several strengths: `invert_film`, whose smoothed latents `edit_files` edits.

    Writes film_STRENGTH.mp4 for every strength, and else what these two leave.

    Args:
      weights, source, out, options: as `invert_film`.
      edits, strengths, rows, bands, absolute, other_generator, keep, identity, face_detector,
        attributes: as `edit_files`. The identity network also says how alike frames are among
        themselves.

    Returns:
      The report.

    Raises:
      InputError, MachineError: as these two.
    """
    stages = FilmStages(
        weights, source, out, keep=keep, identity=(identity, face_detector), **options
    )
    # Before anything is inverted.
    rows = choose_rows(rows, bands, stages.model.latents_shape[0])
    planned = plan_edits(
        stages.model, edits, rows=rows, absolute=absolute, other_generator=other_generator
    )
    labels = [strength_label(strength) for strength in choose_strengths(planned, strengths)]
    names = {label: f"film_{label}" for label in labels}
    stages.check_out(names.values())
    latents = stages.latents()

    def draw(folder: Path) -> dict[str, Any]:
        drawing = stages.drawing_weights()
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
            dtype=stages.dtype,
            batch_size=stages.batch_size,
            identity=identity,
            face_detector=face_detector,
            attributes=attributes,
            **stages.run,
        )

    return stages.films(names, draw)
