"""The work of `interestyle edit`: images or latents, edited at several strengths."""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from interestyle_jax.editing.bands import choose_rows, describe_rows
from interestyle_jax.editing.direction_files import find_direction, parse_direction
from interestyle_jax.editing.edits import Edit
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.evaluation.identity import identity_options, load_identity
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.edit_inputs import open_inputs, open_tuned
from interestyle_jax.jobs.edit_job import Column, EditJob
from interestyle_jax.jobs.job import RunOptions
from interestyle_jax.jobs.kept_region import Keep, KeptRegion
from interestyle_jax.jobs.run import run_job
from interestyle_jax.one_line import print_notice
from interestyle_jax.parallel.sharding import local_mesh
from interestyle_jax.weights import digest

# Of an edit without a known range.
STRENGTHS = (-3.0, 0.0, 3.0)


class PlannedEdit(NamedTuple):
    """An edit of a job.

    Attributes:
      edit: see `editing.edits`.
      strength: its own in all columns, or None where it takes each column's.
      facts: what the report says of it, as JSON; results depend on nothing else of it.
    """

    edit: Edit
    strength: float | None
    facts: dict[str, Any]


def edit_files(
    weights: str,
    out: str | Path,
    *,
    edits: Sequence[str | PlannedEdit | Callable[[Model], PlannedEdit]],
    source: str | Path | None = None,
    latents: str | Path | None = None,
    strengths: Sequence[float] | None = None,
    rows: Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    absolute: bool = False,
    other_generator: bool = False,
    num_iterations: int | None = None,
    dtype: str = "float32",
    batch_size: int | None = None,
    alignment: Alignment | None = None,
    keep: Keep | None = None,
    identity: str | Path | None = None,
    face_detector: str | Path | None = None,
    attributes: str | Path | None = None,
    tuned: str | Path | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Edits images, or latents, at several strengths, on all devices of this process.

    Writes NAME_STRENGTH.png for every name and strength, `sheet.png` (rows images, columns
    strengths, the first 16), `latents.npz` (`names`, `w_plus` [n, S, L, D], one entry a strength)
    and `report.json`. Edits in S change no `w_plus`: of them NAME_styles.npz holds `styles` [S, C],
    flat as of `editing.style_space`. With an alignment that pastes back, NAME_STRENGTH_pasted.png
    is the photograph with its edited face. The same call continues after a stop, see `run_job`.

    Args:
      weights: name or directory of weights with a generator, and of images with an encoder.
      out: folder, made where missing.
      edits: in order. A text is a direction, "NAME_OR_FILE[:STRENGTH]", see
        `editing.direction_files`; one with a strength of its own has it in all columns. Edits that
        a text asks for are made by `jobs.text_edits`.
      source: image file or folder; or
      latents: a `latents.npz` or the folder of one, of which the last iteration is edited.
      strengths: one a column; None: the ends of the first direction's range, and 0.
      rows: edit these rows of `w_plus` alone; None takes each direction's own.
      bands: the rows by resolution instead, see `editing.bands`.
      absolute: strengths are coordinates to reach, see `Direction.edit`.
      other_generator: take latents and directions that were made for another generator.
      num_iterations: N; None as in `Model.invert`.
      dtype, batch_size, alignment, run: as `jobs.inversions.invert_files`.
      keep: the region that may change; outside it the image stays, or of latents the inversion.
      identity: weights of the ID similarity's embedder, or None. It compares each edited image
        with the input, of latents with the image of the latents as they are.
      face_detector: "mtcnn" weights, which go with `identity`.
      attributes: weights of a reader of attributes (`evaluation.attributes`), for the report, or
        None.
      tuned: folder of an `invert --method` that gave every latent a generator of its own, see
        `inversion.generator_differences`; None: the weights' for all.

    Returns:
      The report.

    Raises:
      InputError: neither or both of `source` and `latents`, no edits, or what they, the weights
        or `out` lack.
      MachineError: the disk is full or fails.
    """
    model = load(weights, dtype=dtype, mesh=local_mesh())
    rows = choose_rows(rows, bands, model.latents_shape[0])
    planned = plan_edits(
        model, edits, rows=rows, absolute=absolute, other_generator=other_generator
    )
    chosen = choose_strengths(planned, strengths)
    columns = _columns(planned, chosen)
    inputs = open_inputs(
        model,
        source,
        latents,
        alignment=alignment,
        num_iterations=num_iterations,
        other_generator=other_generator,
        keep_pixels=keep is not None,
    )
    outside = outside_ranges(planned, [column.strengths for column in columns])
    told = {
        "edits": [each.facts | {"strength": each.strength} for each in planned],
        "strengths": list(chosen),
    }
    job = EditJob(
        model,
        inputs,
        columns,
        keep=None if keep is None else KeptRegion(keep),
        identity=load_identity(identity, face_detector, mesh=model.mesh),
        batch_size=batch_size,
        options={
            **told,
            **identity_options(identity, face_detector),
            # None is no fact of older results.
            **({} if attributes is None else {"attributes": digest(attributes)}),
        },
        facts=told | {"outside_range": outside},
        tuned=open_tuned(tuned, model, inputs, other_generator=other_generator),
        reader=None if attributes is None else AttributeReader(attributes),
    )
    for line in [*outside, *of_other_length(planned)]:
        print_notice(line)
    return run_job(job, inputs.items, Path(out), **run)


def _columns(planned: Sequence[PlannedEdit], strengths: Sequence[float]) -> list[Column]:
    varied = [each.edit.name for each in planned if each.strength is None]
    columns = []
    for strength in strengths:
        label = strength_label(strength)
        if varied:
            title = f"{', '.join(varied)} {label}"
        else:
            title = ", ".join(f"{p.edit.name} {strength_label(p.strength or 0)}" for p in planned)
        own = tuple(strength if p.strength is None else p.strength for p in planned)
        columns.append(Column(label, title, tuple(p.edit for p in planned), own))
    return columns


def plan_edits(
    model: Model,
    edits: Sequence[str | PlannedEdit | Callable[[Model], PlannedEdit]],
    *,
    rows: Sequence[int] | None = None,
    absolute: bool = False,
    other_generator: bool = False,
) -> list[PlannedEdit]:
    """The edits of a job, directions read and checked against the generator.

    Args:
      model: has the generator.
      edits: directions as texts, see `edit_files`, or planned already, or once the model is there.
      rows, absolute, other_generator: as `edit_files`; `rows` limits planned edits too.

    Raises:
      InputError: no edits, or what `find_direction` raises.
    """
    if not edits:
        raise InputError("--direction: none, expected at least one (or --text, --mapper)")
    layers, w_dim = model.style_layers, model.latents_shape[1]
    own = None if other_generator else model.generator_fingerprint
    planned = []
    for given in edits:
        given = given(model) if callable(given) else given
        if isinstance(given, PlannedEdit):
            edit = given.edit if rows is None else given.edit.on_rows(rows, layers)
            facts = given.facts | {"rows": None if rows is None else describe_rows(rows)}
            planned.append(given._replace(edit=edit, facts=facts))
            continue
        name, strength = parse_direction(given)
        direction = find_direction(name, layers, w_dim=w_dim, generator=own)
        chosen = direction.rows if rows is None else tuple(rows)
        facts = {
            "name": direction.name,
            "direction": name,
            "kind": direction.kind,
            "norm": round(direction.norm, 6),
            "unit": direction.unit,
            "source": direction.source,
            "rows": None if chosen is None else describe_rows(chosen),
            "default_range": direction.default_range and list(direction.default_range),
            "absolute": absolute,
            "sha256": hashlib.sha256(np.ascontiguousarray(direction.array).data).hexdigest()[:16],
        }
        edit = direction.edit(layers, rows=rows, absolute=absolute)
        planned.append(PlannedEdit(edit, strength, facts))
    return planned


def choose_strengths(
    planned: Sequence[PlannedEdit], strengths: Sequence[float] | None
) -> tuple[float, ...]:
    """The columns' strengths.

    Raises:
      InputError: one that is not finite, one twice, or any where every edit has its own.
    """
    varied = [each.edit for each in planned if each.strength is None]
    if not varied:
        if strengths is not None:
            raise InputError("--strength: every direction has one of its own, :STRENGTH")
        return (float(planned[0].strength or 0),)
    if strengths is None:
        low, high = varied[0].default_range or (STRENGTHS[0], STRENGTHS[-1])
        strengths = sorted({low, 0.0, high})
    if not strengths or not all(math.isfinite(strength) for strength in strengths):
        raise InputError(f"--strength: {list(strengths)}, expected numbers")
    labels = [strength_label(strength) for strength in strengths]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"--strength: {twice[0]} is given twice")
    return tuple(float(strength) for strength in strengths)


def strength_label(strength: float) -> str:
    """A strength in file names and labels: "-3", "0", "+1.5"."""
    return f"{strength:+g}" if strength else "0"


def outside_ranges(
    planned: Sequence[PlannedEdit], strengths: Sequence[Sequence[float]]
) -> list[str]:
    """Words about every edit with strengths outside of the range in which it is known to work.

    Args:
      planned: the edits.
      strengths: of each column, one an edit.
    """
    lines = []
    for each, used in zip(planned, zip(*strengths, strict=True), strict=True):
        limits = each.edit.default_range
        if limits is None:
            continue
        wrong = sorted({s for s in used if not limits[0] <= s <= limits[1]})
        if wrong:
            lines.append(
                f"{each.edit.name}: strength {', '.join(map(strength_label, wrong))} is outside "
                f"of {limits[0]:g} to {limits[1]:g}, in which it is known to work"
            )
    return lines


def of_other_length(planned: Sequence[PlannedEdit]) -> list[str]:
    """Words about every direction of W or W+ whose strengths are neither lengths nor deviations."""
    return [
        f"{each.edit.name}: is no unit vector (norm {each.facts['norm']:g}), a strength of 1 is "
        "its whole length"
        for each in planned
        if each.facts.get("unit") == "raw"
        and each.edit.space == "w_plus"
        and each.edit.default_range is None
    ]
