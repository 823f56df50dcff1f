"""The job behind `interestyle invert`: image files in, inversions and latents out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from interestyle_jax.data.images import encode_png, read_image, save_image
from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.inversion.resize import crop_to_shape
from interestyle_jax.jobs.aligned_faces import Alignment, tell_of_several
from interestyle_jax.jobs.encoder_inputs import EncoderInput, EncoderInputs
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import (
    Finished,
    ImageJob,
    Item,
    Result,
    RunOptions,
    Source,
    choose_batch_size,
)
from interestyle_jax.jobs.run import run_job
from interestyle_jax.parallel.sharding import local_mesh
from interestyle_jax.weights import digest

GRID_ROWS = 16
OWN_FILES = ("grid.png", "latents.npz", "report.json")
BATCH_SIZE = 8
# zlib's default takes twice as long for a tenth less.
PNG_LEVEL = 2


def invert_files(
    weights: str,
    source: str | Path,
    out: str | Path,
    *,
    num_iterations: int | None = None,
    dtype: str = "float32",
    batch_size: int | None = None,
    alignment: Alignment | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Inverts an image, or every image of a folder, on all devices of this process.

    Writes NAME.png (y_hat_N) for every input NAME, then `latents.npz` (`names`, `w_plus`
    [n, N, L, D]; where this would be above 4 GiB, `latents-00000-of-00007.npz` and so on),
    `grid.png` (input, y_hat_1 ... y_hat_N and the error of the first 16) and `report.json`. The
    same call continues after a stop, see `run_job`.

    With an `alignment` the input is the photograph's face, aligned. NAME_pasted.png is the
    photograph with its inversion pasted back.

    Args:
      weights: name or directory of weights with a generator, an encoder and w_avg.
      source: image file or folder.
      out: folder, made where missing.
      num_iterations: N; None as in `Model.invert`.
      dtype: type of the networks' maps, as in `load`.
      batch_size: images a compiled call, raised to a multiple of the devices; None: 8 a device,
        and the results are the same bits on any number of devices.
      alignment: None takes images as they are.
      run: see `RunOptions`; of the images 0.01 may be unreadable, 0.5 without a face.

    Returns:
      The report.

    Raises:
      InputError: unknown weights, a part missing in them, no images, names that collide, too
        many skipped images, weights that do not see squares, or an `out` that cannot be used.
      MachineError: the disk is full or fails.
    """
    out = Path(out)
    model = load(weights, dtype=dtype, mesh=local_mesh())
    model.require_inversion()
    files = ImageFiles(source)
    pasted = alignment is not None and alignment.paste_back
    files.check_results(out, own_files=OWN_FILES, endings=("", "_pasted") if pasted else ("",))
    job = InversionJob(
        model,
        files,
        source,
        num_iterations=model.iterations(num_iterations),
        batch_size=batch_size,
        inputs=EncoderInputs(model, alignment),
    )
    return run_job(job, files, out, **run)


class InversionJob(ImageJob):
    """Images to inversions."""

    command = "invert"
    own_files = OWN_FILES

    def __init__(
        self,
        model: Model,
        files: Source,
        source: str | Path,
        *,
        num_iterations: int,
        batch_size: int | None,
        inputs: EncoderInputs,
        per_device: int = BATCH_SIZE,
    ):
        """Declares the inversion of `files`, which are those of `source`; see `invert_files`."""
        self._model, self._num_iterations = model, num_iterations
        self._labels = [grids.iteration_label(i + 1) for i in range(num_iterations)]
        self._inputs, self._faces, self._pasted = inputs, inputs.faces, inputs.pasted
        self.max_skipped = inputs.max_skipped
        self.batch_size = choose_batch_size(
            batch_size,
            per_device=per_device,
            num_devices=model.num_devices,
            num_images=len(files),
        )
        w_plus = jax.eval_shape(model.mean_latent)
        self.latents_shape = (num_iterations, *w_plus.shape[1:])
        self.generator = model.generator_fingerprint
        self.options = {
            "input": str(Path(source).absolute()),
            "weights": digest(model.directory),
            "steps": num_iterations,
            "dtype": model.dtype,
            "alignment": None if self._faces is None else self._faces.alignment.options(),
        }

    def outputs(self, name: str) -> tuple[str, ...]:
        """NAME.png and NAME_pasted.png."""
        return (f"{name}.png", f"{name}_pasted.png") if self._pasted else (f"{name}.png",)

    def load(self, item: Item) -> EncoderInput:
        """The image as the encoder sees it."""
        return self._inputs.load(item)

    def compute(self, rows: Sequence[EncoderInput | None]) -> dict[str, jax.Array]:
        """Starts the inversion of a batch."""
        images = self._inputs.batch(rows, self.batch_size)
        inversion = self._model.invert(images, self._num_iterations, return_images="last")
        return _to_save(inversion.w_plus, inversion.images)

    def save(self, item: Item, loaded: EncoderInput, row: dict[str, np.ndarray]) -> Result:
        """The files of an image.

        Raises:
          InputError: the inversion is not finite.
        """
        if not row["is_finite"]:
            raise InputError(f"{item.source}: its inversion by these weights is not finite")
        files = {f"{item.name}.png": encode_png(row["image"], compress_level=PNG_LEVEL)}
        facts = {}
        if loaded.face is not None:
            facts = {
                "quad": loaded.face.quad.round(3).tolist(),
                "num_faces": loaded.face.num_faces,
            }
        if self._pasted:
            pasted = self._faces.paste(item.source, loaded.face, row["image"])
            files[f"{item.name}_pasted.png"] = encode_png(pasted, compress_level=PNG_LEVEL)
        return Result(files, facts, row["w_plus"])

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws `grid.png`."""
        rows = self._grid_rows(out, finished)
        names = [name for name, _ in rows]
        if rows:
            grid = grids.draw_grid(
                [row for _, row in rows], ["input", *self._labels, "error"], row_labels=names
            )
            save_image(out / "grid.png", grid)
        report = {
            "num_iterations": self._num_iterations,
            "weights": str(self._model.directory),
            "input_shape": list(self._inputs.shape),
            "dtype": self._model.dtype,
            "resolution": self._model.resolution,
            "w_plus_shape": list(finished.latents.shape),
            "latents": [path.name for path in finished.latents.paths],
            "grid_rows": len(rows),
            "batch_size": self.batch_size,
            "num_devices": self._model.num_devices,
            "seconds_per_image": finished.seconds_per_image,
        }
        if self._faces is not None:
            records = list(finished.records)
            num_faces = {record["file"]: record["num_faces"] for record in records}
            tell_of_several(num_faces)
            report["alignment"] = {
                **self._faces.alignment.options(),
                "size": self._faces.size,
                "num_faces": num_faces,
                "quads": {r["name"]: r["quad"] for r in records},
                "skipped": {r.get("file", r["name"]): r["skipped"] for r in finished.skipped},
            }
        return report

    def _shown(self, record: Mapping[str, Any]) -> np.ndarray:
        """An image as it was inverted, by its line; raises InputError where it is gone."""
        return self._inputs.load(Item(0, record["name"], Path(record["file"]))).image

    def _grid_rows(self, out: Path, finished: Finished) -> list[tuple[str, list[np.ndarray]]]:
        """Names and images of the first inputs; drawn from latents, so that a stop loses none."""
        rows = []
        shape = self._inputs.shape
        for record in finished.records:
            if len(rows) == GRID_ROWS:
                break
            name = record["name"]
            try:
                image = self._shown(record)
            except InputError:
                # The image is gone, its inversion is not.
                continue
            # The last one is the file.
            before = finished.latents[name][:-1]
            images = [to_float(read_image(out / f"{name}.png"))]
            if len(before):
                drawn = self._model.synthesize(jax.device_put(before))
                images = [*jax.device_get(crop_to_shape(drawn, shape)), *images]
            small = jax.device_get(pool_to(jax.device_put(images[-1][None]), shape))[0]
            rows.append((name, [image, *images, grids.error_image(image, small)]))
        return rows


@jax.jit
def _to_save(w_plus: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """w_plus [N, B, L, D], images [1, B, R, R, 3] -> what is saved, rows first: 8-bit images."""
    finite = jnp.isfinite(images[-1]).all((1, 2, 3)) & jnp.isfinite(w_plus).all((0, 2, 3))
    image = to_uint8(images[-1])
    return {"w_plus": w_plus.swapaxes(0, 1), "image": image, "is_finite": finite}
