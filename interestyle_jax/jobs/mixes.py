"""The work of `interestyle mix`: rows of `w_plus` of one image, the others of another (Fig. 9)."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.data.images import save_image
from interestyle_jax.editing.bands import BANDS, band_rows, describe_rows, mixing_edit, parse_rows
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.inversion.generator_differences import (
    Difference,
    add_difference,
    mix_differences,
)
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.inversion.resize import crop_to_shape
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.edit_inputs import EditInputs, open_inputs, open_tuned, read_all
from interestyle_jax.jobs.edit_job import Column, EditJob
from interestyle_jax.jobs.job import RunOptions
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.tuned_generators import TunedGenerators
from interestyle_jax.parallel.sharding import local_mesh

# Every one is a column of every content.
MOST_STYLES = 64


def mix_files(
    weights: str,
    out: str | Path,
    *,
    styles: str,
    source: str | Path | None = None,
    latents: str | Path | None = None,
    style_source: str | Path | None = None,
    style_latents: str | Path | None = None,
    shares: Sequence[float] = (1.0,),
    other_generator: bool = False,
    tuned: str | Path | None = None,
    style_tuned: str | Path | None = None,
    num_iterations: int | None = None,
    dtype: str = "float32",
    batch_size: int | None = None,
    alignment: Alignment | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Draws every content with rows of every style, on all devices of this process.

    Writes NAME_STYLE.png (NAME_STYLE_SHARE.png for several shares) for every content and style,
    `sheet.png` (rows contents, columns styles, the first of them), `latents.npz` and
    `report.json`. The same call continues after a stop, see `run_job`.

    Args:
      weights: name or directory of weights with a generator, and of images with an encoder.
      out: folder, made where missing.
      styles: the rows that come from the style: bands, "coarse", "middle,fine", or rows, "0-3,6".
      source: image file or folder of the contents; or
      latents: a `latents.npz`, or its folder, of the contents.
      style_source: images of the styles; or
      style_latents: their latents; neither takes every content as a style too.
      shares: t of (1 - t) content + t style in these rows, one column a style each; 0 to 1.
      other_generator: take latents of another generator.
      tuned: generators of the contents' own, see `edits.edit_files`; and
      style_tuned: those of `style_latents`. In layers that read the rows, weights are mixed as the
        latents are.
      num_iterations: N of images; None as in `Model.invert`.
      dtype, batch_size, alignment, run: as `jobs.inversions.invert_files`; an alignment is of all
        images.

    Returns:
      The report.

    Raises:
      InputError: not one source of contents, more than MOST_STYLES styles, shares outside of
        [0, 1], or what the rows, the inputs, the weights or `out` lack.
      MachineError: the disk is full or fails.
    """
    if style_source is not None and style_latents is not None:
        raise InputError("--style-input, --style-latents: expected one of them, or none")
    check_shares(shares)
    model = load(weights, dtype=dtype, mesh=local_mesh())
    rows = parse_styles(styles, model.latents_shape[0])
    inverted: dict[str, Any] = {"alignment": alignment, "num_iterations": num_iterations}
    # Where one side is latents, what is said of images is of the other.
    of_contents = inverted if source is not None or style_source is None else {}
    inputs = open_inputs(model, source, latents, other_generator=other_generator, **of_contents)
    style_inputs = inputs
    if style_source is not None or style_latents is not None:
        style_inputs = open_inputs(
            model,
            style_source,
            style_latents,
            other_generator=other_generator,
            names=("--style-input", "--style-latents"),
            **(inverted if style_source is not None else {}),
        )
    if style_tuned is not None and (tuned is None or style_latents is None):
        raise InputError("--style-tuned: needs --tuned and --style-latents")
    own = open_tuned(tuned, model, inputs, other_generator=other_generator)
    styles_own = own
    if style_inputs is not inputs:
        styles_own = open_tuned(style_tuned, model, style_inputs, other_generator=other_generator)
    style_names, w_plus = read_all(style_inputs, model, most=MOST_STYLES, name="styles")
    columns = _columns(model, style_names, w_plus, shares, rows)
    facts = {
        "rows": describe_rows(rows),
        "shares": list(shares),
        "styles": style_names,
    }
    job = MixJob(
        model,
        inputs,
        columns,
        w_plus,
        batch_size=batch_size,
        options={**facts, "style_latents": hashlib.sha256(w_plus.data).hexdigest()[:16]},
        facts=facts,
        tuned=own,
        style_changes=None if styles_own is None else [styles_own.find(n) for n in style_names],
        style_tuned=None if styles_own is None else str(styles_own.folder),
        rows=rows,
        shares=shares,
    )
    return run_job(job, inputs.items, Path(out), **run)


class MixJob(EditJob):
    """Contents drawn with rows of styles."""

    command = "mix"

    def __init__(
        self,
        model: Model,
        inputs: EditInputs,
        columns: Sequence[Column],
        styles: Float[np.ndarray, "n L D"],
        *,
        style_changes: Sequence[Difference] | None,
        style_tuned: str | None,
        rows: Sequence[int],
        shares: Sequence[float],
        tuned: TunedGenerators | None,
        **options: Any,
    ):
        """As `EditJob`; `styles` [n, L, D] are drawn above the sheet, each over its columns.

        Args:
          model, inputs, columns, tuned, options: as there.
          styles: latents.
          style_changes: what their generators differ in, or None.
          style_tuned: the folder of these.
          rows, shares: what is mixed of styles, and how much in each column of one.
        """
        options["options"] = {**options["options"], "style_tuned": style_tuned}
        super().__init__(model, inputs, columns, keep=None, identity=None, tuned=tuned, **options)
        self._styles, self._num_shares = styles, len(columns) // len(styles)
        self._style_changes, self._rows, self._shares = style_changes, frozenset(rows), shares

    def _changes(
        self, changes: Sequence[Difference | None], column: int
    ) -> Sequence[Difference | None]:
        if self._tuned is None:
            return changes
        style, share = divmod(column, self._num_shares)
        other = {} if self._style_changes is None else self._style_changes[style]
        layers = self._model.style_layers
        return [
            None
            if change is None
            else mix_differences(change, other, self._shares[share], self._rows, layers)
            for change in changes
        ]

    def _draw_sheet(self, out: Path, rows: Sequence[tuple[str, list[np.ndarray]]]) -> None:
        """The styles above, the contents on the left."""
        shown = self._shown_columns
        changes = self._style_changes or [None] * len(self._styles)
        drawn = [self._drawn(*pair) for pair in zip(self._styles, changes, strict=True)]
        blank = np.ones_like(drawn[0])
        above = [drawn[k // self._num_shares] for k in range(len(shown))]
        lines = [[blank, *above]]
        for name, images in rows:
            # Images begin with their input; what is mixed is its inversion.
            own = None if self._tuned is None else self._tuned.find(name)
            lines.append([self._drawn(self._content(out, name), own), *images[-len(shown) :]])
        labels = ["content", *(column.title for column in shown)]
        given = f"style, rows {self._facts['rows']}"
        sheet = grids.draw_grid(lines, labels, row_labels=[given, *(name for name, _ in rows)])
        save_image(out / "sheet.png", sheet)

    def _content(self, out: Path, name: str) -> np.ndarray:
        """A content's own latent [L, D]."""
        items = (self._inputs.items[i] for i in range(len(self._inputs.items)))
        item = next(item for item in items if item.name == name)
        if self._images is None:
            return self._inputs.read(item)
        batch = self._images.batch([self._images.load(item)])
        inversion = self._model.invert(batch, self._inputs.num_iterations, return_images="none")
        return jax.device_get(inversion.w_plus[-1][0])

    def _drawn(self, w_plus: np.ndarray, change: Difference | None) -> np.ndarray:
        """[L, D] -> [H, W, 3] in [-1, 1], by a generator that differs so."""
        model = self._model
        if change is not None:
            own = add_difference(model.variables["generator"], change)
            model = dataclasses.replace(model, variables={**model.variables, "generator": own})
        drawn = model.synthesize(jax.device_put(w_plus[None]))
        if "encoder" in self._model.variables:
            drawn = crop_to_shape(drawn, self._model.input_shape)
        return jax.device_get(drawn)[0]


def parse_styles(text: str, length: int) -> tuple[int, ...]:
    """Rows of `--styles`: bands or rows, see `editing.bands`.

    Args:
      text: "coarse", "middle,fine", "0-3,6".
      length: L of the generator.

    Raises:
      InputError: neither, or rows or bands that the generator does not have.
    """
    words = [word.strip() for word in text.split(",")]
    if words[0].isalpha():
        return band_rows(words, length)
    try:
        rows = parse_rows(text)
    except InputError as error:
        names = ", ".join(BANDS)
        raise InputError(f"--styles: {text!r}, expected rows such as 0-3,6 or {names}") from error
    if rows[-1] >= length:
        raise InputError(f"--styles: row {rows[-1]}, this generator has the rows 0 to {length - 1}")
    return rows


def check_shares(shares: Sequence[float]) -> None:
    """Raises InputError unless they are different numbers from 0 to 1."""
    wrong = [share for share in shares if not (math.isfinite(share) and 0 <= share <= 1)]
    if wrong or not shares:
        raise InputError(f"--shares: {wrong[0] if wrong else 'none'}, expected 0 to 1")
    labels = [f"{share:g}" for share in shares]
    if len(set(labels)) < len(labels):
        raise InputError(f"--shares: {', '.join(labels)}, expected different ones")


def _columns(
    model: Model,
    names: Sequence[str],
    w_plus: np.ndarray,
    shares: Sequence[float],
    rows: Sequence[int],
) -> list[Column]:
    columns = []
    for name, style in zip(names, w_plus, strict=True):
        # One name for all: edits of the same kind are one program.
        edit = mixing_edit(style[None], name="mix").on_rows(rows, model.style_layers)
        for share in shares:
            label = name if len(shares) == 1 else f"{name}_{share:g}"
            title = name if len(shares) == 1 else f"{name} {share:g}"
            columns.append(Column(label, title, (edit,), (float(share),)))
    return columns
