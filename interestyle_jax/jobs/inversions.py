"""The job behind `interestyle invert`: image files in, inversions and latents out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from interestyle_jax.data.images import read_image, save_image
from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import grids
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.inversion.resize import crop_to_shape
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.encoder_inputs import EncoderInput, EncoderInputs
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import Finished, Item, Result, RunOptions, Source
from interestyle_jax.jobs.latent_job import BATCH_SIZE, LatentJob
from interestyle_jax.jobs.run import run_job
from interestyle_jax.parallel.sharding import local_mesh

GRID_ROWS = 16


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
    model = load(weights, dtype=dtype, mesh=local_mesh())
    model.require_inversion()
    files = ImageFiles(source)
    job = InversionJob(
        model,
        files,
        source,
        num_iterations=model.iterations(num_iterations),
        batch_size=batch_size,
        inputs=EncoderInputs(model, alignment),
    )
    return run_job(job, files, Path(out), **run)


class InversionJob(LatentJob):
    """Images to inversions."""

    command = "invert"
    own_files = ("grid.png", "latents.npz", "report.json")

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
        self._inputs, self._num_iterations = inputs, num_iterations
        self._labels = [grids.iteration_label(i + 1) for i in range(num_iterations)]
        super().__init__(
            model,
            inputs,
            num_images=len(files),
            num_latents=num_iterations,
            batch_size=batch_size,
            per_device=per_device,
            options={
                "input": str(Path(source).absolute()),
                "steps": num_iterations,
                "alignment": None if inputs.faces is None else inputs.faces.alignment.options(),
            },
        )

    def load(self, item: Item) -> EncoderInput:
        """The image as the encoder sees it."""
        return self._inputs.load(item)

    def compute(self, rows: Sequence[EncoderInput | None]) -> dict[str, jax.Array]:
        """Starts the inversion of a batch."""
        images = self._inputs.batch(rows)
        inversion = self._model.invert(images, self._num_iterations, return_images="last")
        return _to_save(inversion.w_plus, inversion.images)

    def save(self, item: Item, loaded: EncoderInput, row: dict[str, np.ndarray]) -> Result:
        """The files of an image.

        Raises:
          InputError: the inversion is not finite.
        """
        if not row["is_finite"]:
            raise InputError(f"{item.source}: its inversion by these weights is not finite")
        files = self._image_files(item, loaded.face, item.name, row["image"])
        return Result(files, self._face_facts(loaded.face), row["w_plus"])

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws `grid.png`."""
        names, rows = [], []
        for name, (image,) in self._first(finished, GRID_ROWS):
            names.append(name)
            rows.append([image, *self._drawn(out, finished, name, image)])
        if rows:
            labels = ["input", *self._labels, "error"]
            save_image(out / "grid.png", grids.draw_grid(rows, labels, row_labels=names))
        return {
            **self._report(finished),
            "num_iterations": self._num_iterations,
            "input_shape": list(self._inputs.shape),
            "grid_rows": len(rows),
        }

    def _drawn(
        self, out: Path, finished: Finished, name: str, image: np.ndarray
    ) -> list[np.ndarray]:
        """y_hat_1 ... y_hat_N, and the error; drawn from latents, so that a stop loses none."""
        shape = self._inputs.shape
        # The last one is the file.
        before = finished.latents[name][:-1]
        images = [to_float(read_image(out / f"{name}.png"))]
        if len(before):
            drawn = self._model.synthesize(jax.device_put(before))
            images = [*jax.device_get(crop_to_shape(drawn, shape)), *images]
        small = jax.device_get(pool_to(jax.device_put(images[-1][None]), shape))[0]
        return [*images, grids.error_image(image, small)]


@jax.jit
def _to_save(w_plus: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """w_plus [N, B, L, D], images [1, B, R, R, 3] -> what is saved, rows first: 8-bit images."""
    finite = jnp.isfinite(images[-1]).all((1, 2, 3)) & jnp.isfinite(w_plus).all((0, 2, 3))
    image = to_uint8(images[-1])
    return {"w_plus": w_plus.swapaxes(0, 1), "image": image, "is_finite": finite}
