"""Measuring encoders as an image job: what is done with a batch, and with all images."""

import array
import collections
import functools
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from interestyle_jax.data.pipeline import normalize
from interestyle_jax.data.pixels import to_uint8
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.boundary import Parse, intersection_over_union
from interestyle_jax.evaluation.fid import Statistics
from interestyle_jax.evaluation.identity import Identity, embed_found, similarity_of_found
from interestyle_jax.evaluation.measurement import (
    Examples,
    Measurement,
    as_measured,
    measure,
    measure_mean_latent,
)
from interestyle_jax.evaluation.metrics import Lpips
from interestyle_jax.evaluation.results import collect_metrics, draw_figures
from interestyle_jax.evaluation.style_alignment import Anchors, measure_anchors, nscd
from interestyle_jax.evaluation.table import markdown_table
from interestyle_jax.inversion.inverter import Inversion, Model
from interestyle_jax.inversion.resize import Shape, crop_to_shape
from interestyle_jax.jobs.edited_inversions import EditedInversions
from interestyle_jax.jobs.feature_sets import STATISTICS, FeatureSets
from interestyle_jax.jobs.job import Finished, ImageJob, Item, Result, choose_batch_size, stack_rows
from interestyle_jax.jobs.samples import Samples
from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder
from interestyle_jax.weights import digest

GRID_ROWS = 8
BATCH_SIZE = 16
# Batches of a process whose inversions are timed; others are not waited for.
NUM_TIMED = 3
# One of the figures that are always drawn.
FIGURE = "figures/latent_variance.png"


class EvaluationJob(ImageJob):
    """Images to distances, of several encoders."""

    command = "evaluate"
    own_files: tuple[str, ...] = ("report.json", "metrics.json", "table.md", FIGURE)

    def __init__(
        self,
        models: Sequence[Model],
        samples: Samples,
        lpips: Lpips,
        identity: Identity | None,
        *,
        features: FeatureSets | None,
        edits: EditedInversions | None,
        parse: Parse | None,
        num_iterations: int | None,
        batch_size: int | None,
        options: Mapping[str, Any],
        report_options: Mapping[str, Any],
    ):
        """Declares the measurement of the samples, see `evaluate`; `report_options` has names.

        `edits` go with `features`.
        """
        self._models, self._samples = models, samples
        self._lpips, self._identity = lpips, identity
        self._features, self._edits, self._parse = features, edits, parse
        self._num_iterations = [
            1 if m.iterations() == 1 else m.iterations(num_iterations) for m in models
        ]
        self._shapes = list(dict.fromkeys(model.input_shape for model in models))
        self.batch_size = choose_batch_size(
            batch_size,
            per_device=BATCH_SIZE,
            num_devices=models[0].num_devices,
            num_images=len(samples),
        )
        self.compares = identity is not None
        # What was started last, while inversions are timed.
        self._num_batches, self._started = 0, None
        self.options = {
            **samples.options,
            "weights": [digest(model.directory) for model in models],
            "steps": self._num_iterations,
            "dtype": models[0].dtype,
            **options,
            # None is no fact of older results.
            **({} if edits is None else {"edits": edits.options}),
        }
        self.report_options = report_options
        if features is not None:
            self.own_files = (*self.own_files, STATISTICS)

    def load(self, item: Item) -> dict[Shape, dict[str, np.ndarray]]:
        """The sample as each encoder sees it."""
        return self._samples.read(item, self._shapes)

    def compute(self, rows: Sequence[Any | None]) -> dict[str, Any]:
        """Starts the inversions of a batch, and what is measured of them."""
        batches = {shape: self._put(rows, shape) for shape in self._shapes}
        mean_latent = measure_mean_latent(self._lpips, batches[self._shapes[0]], self._mean_image)
        self._started, encoders = mean_latent, []
        for k, model in enumerate(self._models):
            batch = batches[model.input_shape]
            inversion, seconds = self._timed(k, batch["image"])
            leaks = {"clean", "interest_mask"} <= batch.keys()
            clean = self._invert(k, batch["clean"]).images if leaks else None
            measured = measure(
                self._lpips,
                batch,
                inversion.w_plus,
                inversion.images,
                clean_images=clean,
                shape=model.input_shape,
                pairs=self._identity is not None,
                plain_pairs=self._parse is not None,
            )
            anchors = self._anchors[k]
            if anchors is not None:
                variables, module = model.variables["generator"], model.network("generator")
                values = measured["values"]
                values["nscd"] = nscd(anchors, variables, inversion.w_plus, module=module)
            if self._features is not None:
                last = as_measured(inversion.images[-1], model.input_shape)
                measured["features"] = self._features.extract(last)
                if self._edits is not None:
                    edited, finite = self._edits.draw(k, model, inversion.w_plus)
                    measured["edited"] = self._features.extract(edited)
                    measured["is_finite"] &= finite
            self._started = measured
            encoders.append(measured | {"seconds": np.full(self.batch_size, seconds)})
        self._num_batches += 1
        computed = {"encoders": encoders, "mean_latent": mean_latent}
        if self._features is not None:
            computed["features"] = [self._features.extract(b["image"]) for b in batches.values()]
        return computed

    def inspect(self, row: dict[str, Any]) -> list[np.ndarray | None]:
        """The faces of an image and its inversion, for every encoder."""
        assert self._identity is not None
        return [self._identity.faces(*measured["pair"]) for measured in row["encoders"]]

    def compare(self, rows: Sequence[list[np.ndarray | None] | None]) -> dict[str, Any]:
        """Starts the embedding of the faces."""
        assert self._identity is not None
        return {"faces": embed_found(self._identity, rows)}

    def save(self, item: Item, loaded: Any, row: dict[str, Any]) -> Result:
        """What was measured of an image, as facts.

        Raises:
          InputError: an inversion is not finite.
        """
        encoders = []
        for k, measured in enumerate(row["encoders"]):
            if not measured["is_finite"]:
                raise InputError(
                    f"{item.source}: its inversion by {self._models[k].directory} is not finite"
                )
            facts = {name: value.tolist() for name, value in measured["values"].items()}
            if not math.isnan(measured["seconds"]):
                facts["seconds"] = float(measured["seconds"])
            if self._identity is not None:
                facts["id_similarity"] = similarity_of_found(row["faces"][k])
            if self._parse is not None:
                original, region = map(self._parse, measured["plain_pair"])
                facts["boundary_iou"] = intersection_over_union(region, original)
            encoders.append(facts)
        mean_latent = {name: float(value) for name, value in row["mean_latent"].items()}
        noted = {"encoders": encoders, "mean_latent": mean_latent}
        if self._features is not None:
            noted["features"] = self._features.note(row)
        return Result({}, noted)

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Writes the metrics, the table and the figures."""
        names: Sequence[str] = self.report_options["names"]
        *encoders, mean_latent = self._columns(finished)
        rows = self._first_rows(finished)
        measurements, statistics = {}, None
        for k, (name, values) in enumerate(zip(names, encoders, strict=True)):
            seconds, anchors = values.pop("seconds", None), self._anchors[k]
            distances, own = self._distances(finished, k)
            statistics = statistics or own
            measurements[name] = Measurement(
                values=values,
                seconds_per_image=None if seconds is None else float(np.median(seconds)),
                examples=self._examples(k, rows),
                nscd_of_samples=None if anchors is None else float(anchors.of_samples),
                **distances,
            )
        metrics = collect_metrics(self.report_options["data"], measurements, mean_latent)
        with output_folder(out) as folder:
            write_json(folder / "metrics.json", metrics)
            if statistics is not None:
                statistics.save(folder / STATISTICS)
            (folder / "table.md").write_text(markdown_table(metrics), encoding="utf-8")
            (folder / "figures").mkdir()
            draw_figures(measurements, folder / "figures")
            # Of encoders that had other names.
            for path in (out / "figures").glob("*.png"):
                path.unlink()
        return {
            **self.options,
            "weights": {n: str(m.directory) for n, m in zip(names, self._models, strict=True)},
            "batch_size": self.batch_size,
            "num_devices": self._models[0].num_devices,
        }

    @functools.cached_property
    def _mean_image(self) -> jax.Array:
        """G(w_avg) of the first encoder's generator, `as_measured`."""
        model = self._models[0]
        drawn = model.synthesize(model.mean_latent())
        return as_measured(crop_to_shape(drawn, model.input_shape), model.input_shape)

    @functools.cached_property
    def _anchors(self) -> list[Anchors | None]:
        """Of each encoder's generator, for NSCD."""
        return [measure_anchors(model) for model in self._models]

    def _put(self, rows: Sequence[Any | None], shape: Shape) -> dict[str, jax.Array]:
        """Samples on the devices, {field: [B, *shape, C]}; zeros where there is none."""
        fields = {}
        for field in self._samples.fields:
            own = [row and row[shape][field] for row in rows]
            channels = 1 if "mask" in field else 3
            fields[field] = stack_rows(own, (*shape, channels), dtype=np.uint8)
        return _normalize(jax.device_put(fields, self._models[0].row_sharding))

    def _invert(self, k: int, images: jax.Array) -> Inversion:
        return self._models[k].invert(images, self._num_iterations[k], return_images="last")

    def _timed(self, k: int, images: jax.Array) -> tuple[Inversion, float]:
        """Inversions, and of the first batches the seconds an image, else NaN."""
        if self._num_batches >= NUM_TIMED:
            return self._invert(k, images), math.nan
        if self._num_batches == 0:
            # Compiles outside of the timing.
            jax.block_until_ready(self._invert(k, images))
        jax.block_until_ready(self._started)
        begun = time.perf_counter()
        inversion = jax.block_until_ready(self._invert(k, images))
        return inversion, (time.perf_counter() - begun) / self.batch_size

    def _columns(self, finished: Finished) -> list[dict[str, np.ndarray]]:
        """The values of all images, {name: [n]}, of every encoder, then of the mean latent."""
        columns: list[dict[str, array.array]] = [{} for _ in range(len(self._models) + 1)]
        for record in finished.records:
            parts = [*record["encoders"], record["mean_latent"]]
            for own, facts in zip(columns, parts, strict=True):
                for name, value in facts.items():
                    own.setdefault(name, array.array("d")).extend(np.ravel(np.array(value, float)))
        found = [{name: np.asarray(c) for name, c in own.items()} for own in columns]
        for arrays, num_iterations in zip(found, self._num_iterations, strict=False):
            arrays["latent_variance"] = arrays["latent_variance"].reshape(-1, num_iterations)
        return found

    def _distances(self, finished: Finished, k: int) -> tuple[dict[str, Any], Statistics | None]:
        """FID of an encoder's inversions and edits, by field, and its images' statistics."""
        if self._features is None:
            return {}, None
        noted = [record["features"] for record in finished.records]
        shape = self._shapes.index(self._models[k].input_shape)
        labels = None if self._edits is None else self._edits.labels
        return self._features.distances(noted, k, shape, edits=labels)

    def _first_rows(self, finished: Finished) -> list[Any]:
        """The first samples, read again: a process that ends a job may have seen none of them."""
        names = {record["name"] for record in itertools.islice(finished.records, GRID_ROWS)}
        items = (self._samples[i] for i in range(len(self._samples)))
        found = (item for item in items if item.name in names)
        return [self.load(item) for item in itertools.islice(found, len(names))]

    def _examples(self, k: int, rows: Sequence[Any]) -> Examples:
        """Inverts these samples again, by the programs of `compute`, and draws every iteration."""
        model, shape = self._models[k], self._models[k].input_shape
        everywhere = model.replicated_sharding
        samples: dict[str, list[np.ndarray]] = collections.defaultdict(list)
        images, clean_images = [], []
        for first in range(0, len(rows), self.batch_size):
            chunk = rows[first : first + self.batch_size]
            batch = self._put([*chunk, *[None] * (self.batch_size - len(chunk))], shape)
            w_plus = jax.device_get(self._invert(k, batch["image"]).w_plus)
            for i in range(len(chunk)):
                for latents in w_plus[:, i]:
                    drawn = model.synthesize(jax.device_put(latents[None], everywhere))
                    images.append(as_measured(crop_to_shape(drawn, shape), shape))
            if "clean" in batch:
                clean = as_measured(self._invert(k, batch["clean"]).images, shape)
                clean_images.extend(jax.device_get(clean)[0, : len(chunk)])
            for field, values in jax.device_get(batch).items():
                samples[field].extend(values[: len(chunk)])
        fields = {field: np.stack(values) for field, values in samples.items()}
        every = np.concatenate(jax.device_get(images)).reshape(len(rows), -1, *shape, 3)
        regions = None
        if self._parse is not None:
            pairs = zip(to_uint8(fields["image"]), to_uint8(every[:, -1]), strict=True)
            regions = np.stack([[self._parse(image) for image in pair] for pair in pairs])
        return Examples(fields, every, np.stack(clean_images) if clean_images else None, regions)


_normalize = jax.jit(normalize)
