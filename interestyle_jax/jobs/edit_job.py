"""The job of `edit` and `mix`: images or latents in, an image for each of some columns out."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from interestyle_jax.data.images import read_image, save_image
from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.editing.edits import Edit
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.evaluation.identity import Identity, embed_found, similarity_of_found
from interestyle_jax.inversion.generator_differences import Difference, stack_differences
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.attribute_report import attribute_report
from interestyle_jax.jobs.edit_drawing import Drawing, draw_each, edit_and_draw, stack
from interestyle_jax.jobs.edit_inputs import EditInputs
from interestyle_jax.jobs.encoder_inputs import EncoderInput
from interestyle_jax.jobs.job import Finished, Item, Result, stack_rows
from interestyle_jax.jobs.kept_region import KeptRegion, at_size, join
from interestyle_jax.jobs.latent_job import LatentJob
from interestyle_jax.jobs.tuned_generators import TunedGenerators

SHEET_ROWS, SHEET_COLUMNS = 16, 32
# Faces are found in images of at most this side: what official encoders see.
MEASURED_SIZE = 256


class Column(NamedTuple):
    """What is done to every image to get one of its results.

    Attributes:
      label: in file names, NAME_LABEL.png, and in the report.
      title: in the sheet.
      edits: in order, see `editing.edits.apply_edits`.
      strengths: one an edit.
    """

    label: str
    title: str
    edits: tuple[Edit, ...]
    strengths: tuple[float, ...]


class _Loaded(NamedTuple):
    """An image and its face, or a latent [L, D] and what its generator differs in."""

    image: EncoderInput | None
    w_plus: np.ndarray | None
    change: Difference | None = None


class EditJob(LatentJob):
    """Images or latents to edited images; see `jobs.edits` and `jobs.mixes`."""

    command = "edit"
    own_files = ("sheet.png", "latents.npz", "report.json")

    def __init__(
        self,
        model: Model,
        inputs: EditInputs,
        columns: Sequence[Column],
        *,
        keep: KeptRegion | None,
        identity: Identity | None,
        batch_size: int | None,
        options: dict[str, Any],
        facts: dict[str, Any],
        tuned: TunedGenerators | None = None,
        reader: AttributeReader | None = None,
    ):
        """Declares the columns of `inputs`.

        Args:
          model: has the generator.
          inputs: images, which are inverted first, or latents.
          columns: at least one; those of the same kinds of edits are one program.
          keep: the region that may change, or None.
          identity: measures the ID similarity, or None.
          batch_size: as `choose_batch_size`.
          options: what results depend on besides these.
          facts: what the report says besides.
          tuned: generators of the latents' own, or None.
          reader: says which attributes the edited images show, or None.
        """
        super().__init__(
            model,
            inputs.images,
            num_images=len(inputs.items),
            num_latents=len(columns),
            batch_size=batch_size,
            options={
                **inputs.options,
                **options,
                "keep": None if keep is None else keep.keep.options(),
                "tuned": None if tuned is None else str(tuned.folder),
            },
        )
        self._inputs, self._columns, self._shown_columns = inputs, columns, columns[:SHEET_COLUMNS]
        self._keep, self._identity = keep, identity
        self._facts, self._tuned, self._reader = facts, tuned, reader
        edits = [edit for column in columns for edit in column.edits]
        self._in_s = any(edit.space == "style" for edit in edits)
        self._drawing = Drawing(
            generator=model.network("generator"),
            crop=model.input_shape if "encoder" in model.variables else None,
            measured=_measured_shape(model) if identity is not None else None,
        )
        # Placed once: no call sends them again.
        given = [(c.edits, tuple(map(np.float32, c.strengths))) for c in columns]
        self._placed = jax.device_put(given, model.replicated_sharding)
        self._draws_original = inputs.images is None and bool(keep or identity)
        self.compares = identity is not None

    def outputs(self, name: str) -> tuple[str, ...]:
        """NAME_LABEL.png, NAME_LABEL_pasted.png, NAME_styles.npz."""
        stems = [f"{name}_{column.label}" for column in self._columns]
        files = [file for stem in stems for file in LatentJob.outputs(self, stem)]
        return (*files, f"{name}_styles.npz") if self._in_s else tuple(files)

    def load(self, item: Item) -> _Loaded:
        """The image as the encoder sees it, or the latent."""
        if self._images is None:
            change = None if self._tuned is None else self._tuned.find(item.name)
            return _Loaded(None, self._inputs.read(item), change)
        return _Loaded(self._images.load(item), None)

    def compute(self, rows: Sequence[_Loaded | None]) -> dict[str, Any]:
        """Starts the inversion of a batch where it has images, and its edits."""
        result: dict[str, Any] = {}
        if self._images is not None:
            batch = self._images.batch([row and row.image for row in rows])
            inversion = self._model.invert(batch, self._inputs.num_iterations, return_images="none")
            w_plus = inversion.w_plus[-1]
            if self.compares:
                result["reference"] = to_uint8(batch)
        else:
            host = stack_rows([row and row.w_plus for row in rows], self._model.latents_shape)
            w_plus = jax.device_put(host, self._model.row_sharding)
        changes = [None if row is None else row.change for row in rows]
        if self._draws_original:
            original = self._draw((), (), w_plus, changes)
            result["original"] = original["image"]
            if "measured" in original:
                result["reference"] = original["measured"]
        columns = [
            self._draw(edits, strengths, w_plus, self._changes(changes, k))
            for k, (edits, strengths) in enumerate(self._placed)
        ]
        return result | stack(columns)

    def _changes(
        self, changes: Sequence[Difference | None], column: int
    ) -> Sequence[Difference | None]:
        """What the generators of a batch differ in, in a column."""
        del column
        return changes

    def _draw(self, edits, strengths, w_plus, changes) -> dict[str, Any]:
        variables, drawing = self._model.variables["generator"], self._drawing
        if self._tuned is None:
            return edit_and_draw(variables, edits, strengths, w_plus, drawing=drawing)
        stacked = jax.device_put(stack_differences(changes), self._model.row_sharding)
        return draw_each(
            variables, stacked, edits, strengths, w_plus, drawing=drawing, mesh=self._model.mesh
        )

    def inspect(self, row: dict[str, np.ndarray]) -> list[np.ndarray | None]:
        """The faces of the original and of each edited image."""
        assert self._identity is not None
        return [self._identity.faces(row["reference"], edited) for edited in row["measured"]]

    def compare(self, rows: Sequence[list[np.ndarray | None] | None]) -> dict[str, Any]:
        """Starts the embedding of the faces."""
        assert self._identity is not None
        return {"faces": embed_found(self._identity, rows)}

    def save(self, item: Item, loaded: _Loaded, row: dict[str, np.ndarray]) -> Result:
        """The files of an image.

        Raises:
          InputError: an edited image is not finite, or there is no mask of the image.
        """
        if not row["is_finite"].all():
            wrong = self._columns[int(np.argmin(row["is_finite"]))].title
            raise InputError(f"{item.source}: edited by {wrong} it is not finite")
        files: dict[str, bytes] = {}
        face = None if loaded.image is None else loaded.image.face
        facts = self._face_facts(face)
        edited: Any = row["image"]
        if self._keep is not None:
            edited = self._kept(item, loaded, row)
        for column, image in zip(self._columns, edited, strict=True):
            files |= self._image_files(item, face, f"{item.name}_{column.label}", image)
        if self._in_s:
            files[f"{item.name}_styles.npz"] = _npz(styles=row["styles"])
        if self.compares:
            facts["id_similarity"] = [similarity_of_found(own) for own in row["faces"]]
        return Result(files, facts, row["w_plus"])

    def _kept(self, item: Item, loaded: _Loaded, row: dict[str, np.ndarray]) -> list[np.ndarray]:
        shape = row["image"].shape[1:3]
        pixels = row["original"] if loaded.image is None else loaded.image.pixels
        mask = self._keep.mask(pixels, shape, name=item.name)
        original = at_size(pixels, shape)
        return [join(original, image, mask) for image in row["image"]]

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws `sheet.png`."""
        rows: list[tuple[str, list[np.ndarray]]] = []
        for name, images in self._first(finished, SHEET_ROWS):
            # Read from files, so that a stop loses none.
            files = (out / f"{name}_{column.label}.png" for column in self._shown_columns)
            rows.append((name, [*images, *(to_float(read_image(file)) for file in files)]))
        if rows:
            self._draw_sheet(out, rows)
        records = list(finished.records)
        report = {
            **self._report(finished),
            **self._facts,
            "columns": [column.label for column in self._columns],
            "keep": self.options["keep"],
            "sheet_rows": len(rows),
            "id_similarity": self._mean_similarity(records) if self.compares else None,
        }
        if self._reader is not None:
            names, labels = [r["name"] for r in records], [c.label for c in self._columns]
            report["attributes"] = attribute_report(self._reader, out, names, labels)
        return report

    def _draw_sheet(self, out: Path, rows: Sequence[tuple[str, list[np.ndarray]]]) -> None:
        """Writes the sheet of names and images, a row each."""
        first = [] if self._images is None else ["input"]
        titles = [*first, *(column.title for column in self._shown_columns)]
        sheet = grids.draw_grid(
            [images for _, images in rows], titles, row_labels=[name for name, _ in rows]
        )
        save_image(out / "sheet.png", sheet)

    def _mean_similarity(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Means over the images in which both faces were found, and how many these are."""
        table: dict[str, Any] = {}
        for k, column in enumerate(self._columns):
            known = [r["id_similarity"][k] for r in records]
            known = [value for value in known if value is not None]
            mean = math.fsum(known) / len(known) if known else None
            table[column.label] = {"mean": mean, "num_images": len(known)}
        return table


def _measured_shape(model: Model) -> tuple[int, int]:
    if "encoder" in model.variables:
        return model.input_shape
    return (min(model.resolution, MEASURED_SIZE),) * 2


def _npz(**arrays: Any) -> bytes:
    """The content of an .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
