"""The job behind `interestyle invert --method`: images inverted by optimisation."""

import csv
import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from interestyle_jax.data.images import resize_image
from interestyle_jax.data.locate import INFO
from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.errors import InputError
from interestyle_jax.inversion import generator_differences as differences
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.optimisation.optimiser import Optimiser
from interestyle_jax.inversion.optimisation.recipes import Recipe, make_recipe
from interestyle_jax.inversion.optimisation.terms import Target
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.encoder_inputs import EncoderInput, EncoderInputs
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.interest_masks import InterestMasks
from interestyle_jax.jobs.inversions import InversionJob
from interestyle_jax.jobs.job import Finished, Item, Result, RunOptions, stack_rows
from interestyle_jax.jobs.latent_items import LatentItems
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.samples import Samples
from interestyle_jax.one_line import print_notice
from interestyle_jax.parallel.sharding import local_mesh
from interestyle_jax.weights import digest, load_weights, resolve_weights

# As of stylegan2-ada's projector.
SEED = 303
LOSSES = "losses"


def optimise_files(
    weights: str,
    source: str | Path,
    out: str | Path,
    *,
    method: str,
    start: str | Path | None = None,
    interest: str | None = None,
    interest_weights: str | Path | None = None,
    split: str = "test",
    num_steps: int | None = None,
    learning_rate: float | None = None,
    rows: Sequence[int] | None = None,
    locality: bool = True,
    noise: bool = True,
    lpips: Sequence[str | Path] = (),
    identity: str | Path | None = None,
    tuned_dtype: str = "float16",
    dtype: str = "float32",
    batch_size: int | None = None,
    alignment: Alignment | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Inverts images by optimisation, on all devices of this process.

    Writes what `jobs.inversions.invert_files` writes (with one latent an image), and for every
    NAME losses/NAME.csv (terms before each step); where the method changes weights or noise maps
    of the generator, tuned/NAME.safetensors (see `inversion.generator_differences`).

    Args:
      weights: name or directory of weights with a generator, and where the method or `start` asks
        an encoder.
      source: image file or folder, or a TFDS data set.
      out: folder, made where missing.
      method: preset of `inversion.optimisation.recipes`.
      start: "mean", "encoder", or a `latents.npz` (or its folder) with a latent for every image;
        None: the preset's. pti begins to tune at once from an encoder's or a given latent.
      interest: where interest masks come from, which every image term is limited to: a folder, a
        mask provider, or "dataset" for the data set's own; None: whole images.
      interest_weights: the provider's weights.
      split: of a data set.
      num_steps, learning_rate, rows, locality, noise: as `recipes.make_recipe`.
      lpips: weights of LPIPS networks; "lpips_alex" is always at hand, and where it is given and no
        VGG16 is, it takes VGG16's place in LPIPS terms, which the report says.
      identity: weights of a face embedder, for methods with an identity term.
      tuned_dtype: of the differences, "float16" or "float32".
      dtype, alignment, run: as `invert_files`.
      batch_size: images at once; None: 8 a device, 1 where weights are tuned.

    Returns:
      The report.

    Raises:
      InputError: unknown method, a missing network or part, latents of another generator, masks
        that do not go with the images, no room for the differences, or as `invert_files`.
      MachineError: the disk is full or fails.
    """
    out = Path(out)
    if tuned_dtype not in differences.DTYPES:
        raise InputError(f"--tuned-dtype: {tuned_dtype!r}, expected {differences.DTYPES}")
    model = load(weights, dtype=dtype, mesh=local_mesh())
    kind = start if start in (None, "mean", "encoder") else "latents"
    recipe = make_recipe(
        method,
        num_steps=num_steps,
        learning_rate=learning_rate,
        start=None if kind is None else str(kind),
        rows=None if rows is None else tuple(rows),
        locality=locality,
        noise=noise,
        lpips_network=_in_place_of_vgg(method, lpips),
    )
    latents = None
    if kind == "latents":
        assert start is not None
        latents = LatentItems(start, model, other_generator=None)
    files: Any = Samples(source, split) if (Path(source) / INFO).is_file() else ImageFiles(source)
    masks = InterestMasks(interest, interest_weights, files, alignment)
    if isinstance(files, Samples) and alignment is not None:
        raise InputError("--align: a data set's images are as they are, expected image files")
    optimiser = Optimiser(model, recipe, lpips=lpips, embedder=identity)
    job = OptimisationJob(
        optimiser,
        files,
        source,
        latents=latents,
        masks=masks,
        batch_size=batch_size,
        inputs=EncoderInputs(model, alignment, keep_pixels=True, shape=optimiser.target_shape),
        tuned_dtype=tuned_dtype,
        networks={
            "lpips": [digest(name) for name in lpips],
            "identity": identity and digest(identity),
        },
    )
    if recipe.tunes or recipe.keeps_noise:
        _check_room(job, out, len(files))
    return run_job(job, files, out, **run)


class _Loaded(NamedTuple):
    """An image, its mask [H, W, 1] in [0, 1], its latent [L, D] and its number."""

    image: EncoderInput
    mask: np.ndarray | None
    start: np.ndarray | None
    number: int


class OptimisationJob(InversionJob):
    """Images to inversions by optimisation; see `optimise_files`."""

    def __init__(
        self,
        optimiser: Optimiser,
        files: ImageFiles | Samples,
        source: str | Path,
        *,
        latents: LatentItems | None,
        masks: InterestMasks,
        batch_size: int | None,
        inputs: EncoderInputs,
        tuned_dtype: str,
        networks: Mapping[str, Any],
    ):
        """Declares the inversion of `files`, which are those of `source`."""
        recipe = optimiser.recipe
        super().__init__(
            optimiser.model,
            files,
            source,
            num_iterations=1,
            batch_size=batch_size,
            inputs=inputs,
            per_device=recipe.batch_size,
        )
        self._optimiser, self._recipe, self._files = optimiser, recipe, files
        self._latents, self._masks, self._dtype = latents, masks, tuned_dtype
        self._labels = [recipe.name]
        self._differs = recipe.tunes or recipe.keeps_noise
        self.options = {
            **self.options,
            **(files.options if isinstance(files, Samples) else {}),
            "method": recipe.options(),
            "start": None if latents is None else str(latents.path.absolute()),
            "interest": masks.options(),
            "tuned_dtype": tuned_dtype if self._differs else None,
            **networks,
        }

    def outputs(self, name: str) -> tuple[str, ...]:
        """As the encoders', losses/NAME.csv, tuned/NAME.safetensors."""
        tuned = (_tuned(name),) if self._differs else ()
        return (*super().outputs(name), f"{LOSSES}/{name}.csv", *tuned)

    def bytes_an_image(self) -> int:
        """Of tuned/NAME.safetensors, about."""
        return differences.num_bytes(
            self._model.variables["generator"],
            params=self._recipe.tunes,
            noise=self._recipe.keeps_noise,
            dtype=self._dtype,
        )

    def load(self, item: Item) -> _Loaded:  # type: ignore[override]
        """The image, its mask and its latent."""
        shape, mask = self._inputs.shape, None
        if isinstance(self._files, Samples):
            sample = self._files.read(item, [shape])[shape]
            image = EncoderInput(to_float(sample["image"]), None)
            if self._masks.wanted:
                mask = sample["interest_mask"]
        else:
            image = self._inputs.load(item)
            if self._masks.wanted:
                assert image.pixels is not None
                mask = resize_image(self._masks(image.pixels, item.name), shape)
        if mask is not None and not mask.any():
            raise InputError(f"{item.source}: its interest mask is empty")
        start = None
        if self._latents is not None:
            start = self._latents.find(item.name)
        mask = None if mask is None else mask.astype(np.float32) / 255
        return _Loaded(image._replace(pixels=None), mask, start, item.index)

    def compute(self, rows: Sequence[_Loaded | None]) -> dict[str, Any]:  # type: ignore[override]
        """Optimises a batch."""
        images = self._inputs.batch([row and row.image for row in rows])
        masks, start = {}, None
        if self._masks.wanted:
            given = [row and row.mask for row in rows]
            whole = stack_rows(given, (*self._inputs.shape, 1), fill=1)
            masks = {"all": jnp.asarray(whole)}
        if self._latents is not None:
            start = stack_rows([row and row.start for row in rows], self._model.latents_shape)
        with tqdm(
            total=self._recipe.num_steps, desc=self._recipe.name, unit="step", leave=False
        ) as bar:
            found = self._optimiser(
                jax.random.key(SEED),
                [Target(jnp.asarray(images), masks)],
                numbers=[0 if row is None else row.number for row in rows],
                start=start,
                is_used=[row is not None for row in rows],
                on_steps=bar.update,
            )
        phases = np.broadcast_to(found.phases, (len(rows), len(found.phases)))
        return {
            "w_plus": found.w_plus[:, None],
            "image": to_uint8(found.images),
            "is_finite": found.is_finite,
            "num_steps": found.num_steps,
            "trace": {name: values.T for name, values in found.trace.items()},
            "phases": phases,
            "own": {"params": found.params, "noise": found.noise},
        }

    def save(self, item: Item, loaded: _Loaded, row: dict[str, Any]) -> Result:  # type: ignore[override]
        """The files of an image.

        Raises:
          InputError: its loss or a gradient was not finite, on the way.
        """
        steps = int(row["num_steps"])
        if not row["is_finite"]:
            raise InputError(
                f"{item.source}: stopped after {steps} steps, its loss or a gradient is not finite"
            )
        saved = super().save(item, loaded.image, row)
        files = dict(saved.files)
        files[f"{LOSSES}/{item.name}.csv"] = _csv(row["trace"], row["phases"])
        if self._differs:
            change = differences.difference(self._host_generator(), **row["own"], dtype=self._dtype)
            files[_tuned(item.name)] = differences.to_bytes(change, generator=str(self.generator))
        last = row["trace"]["loss"][np.isfinite(row["trace"]["loss"])]
        facts = {**saved.facts, "num_steps": steps, "loss": float(last[-1]) if steps else None}
        return Result(files, facts, saved.latents)

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws `grid.png`."""
        steps = [record["num_steps"] for record in finished.records]
        return {
            **super().finish(out, finished),
            "method": self._recipe.name,
            "source": self._recipe.source,
            "recipe": self._recipe.options(),
            "interest": self._masks.options(),
            "noise_optimised": self._recipe.keeps_noise,
            "generator_tuned": self._recipe.tunes,
            "mean_num_steps": float(np.mean(steps)) if steps else None,
        }

    def _shown(self, record: Mapping[str, Any]) -> np.ndarray:
        if not isinstance(self._files, Samples):
            return super()._shown(record)
        shape = self._inputs.shape
        sample = self._files.read(self._files[int(record["name"])], [shape])
        return to_float(sample[shape]["image"])

    def _host_generator(self) -> Any:
        if not hasattr(self, "_on_host"):
            self._on_host = jax.device_get(self._model.variables["generator"])
        return self._on_host


def _in_place_of_vgg(method: str, lpips: Sequence[str | Path]) -> str | None:
    """AlexNet where it alone is given to a method whose LPIPS is VGG16's, which is said."""
    recipe: Recipe = make_recipe(method)
    wants = {p.terms.lpips_network for p in recipe.phases if p.terms.lpips}
    given = [load_weights(resolve_weights(name)).part("lpips")[0].network for name in lpips]
    if "vgg" not in wants or "vgg" in given or "alex" not in given:
        return None
    print_notice(f"{method} has LPIPS by AlexNet here, its source has VGG16")
    return "alex"


def _check_room(job: OptimisationJob, out: Path, count: int) -> None:
    """Says how much the differences take, and refuses where the disk has less."""
    size = job.bytes_an_image()
    folder = out / differences.FOLDER
    left = max(0, count - len(list(folder.glob(f"*{differences.ENDING}"))))
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    told = f"{left} generator differences of {size / 1e6:.3g} MB take {left * size / 1e9:.3g} GB"
    if left * size > free:
        raise InputError(
            f"{out}: {told}, {free / 1e9:.3g} GB are free; expected more room, fewer images or "
            "--tuned-dtype=float16"
        )
    print(f"interestyle: {told}, {free / 1e9:.3g} GB are free", file=sys.stderr)


def _tuned(name: str) -> str:
    return f"{differences.FOLDER}/{name}{differences.ENDING}"


def _csv(trace: Mapping[str, np.ndarray], phases: np.ndarray) -> bytes:
    """One line a step: its number, its phase, the loss and its terms before the step."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["step", "phase", *trace])
    for step, phase in enumerate(phases):
        values = [values[step] for values in trace.values()]
        if np.isfinite(trace["loss"][step]):
            told = ["" if np.isnan(v) else f"{v:.6g}" for v in values]
            writer.writerow([step, int(phase), *told])
    return file.getvalue().encode()
