"""A run's set-up and its outward acts: compile, validate, save, draw.

The order of set-up: mesh, task, run directory, state, data, checkpoint, compile.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from interestyle_jax.data.data_set import present_fields
from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.data.locate import locate_data_set
from interestyle_jax.data.numbered import NumberedBatches, numbered_evaluation
from interestyle_jax.data.pipeline import (
    TrainingBatches,
    evaluation_batches,
    training_batches,
)
from interestyle_jax.errors import InputError
from interestyle_jax.parallel import processes, sharding
from interestyle_jax.parallel.agreement import check_same_config, check_same_content
from interestyle_jax.training.checkpoints import Checkpoints, best_of
from interestyle_jax.training.compiled_step import jit_train_step, step_places
from interestyle_jax.training.random_streams import SeededTask
from interestyle_jax.training.run_directory import RunDirectory
from interestyle_jax.training.run_files import WEIGHTS, RunFiles
from interestyle_jax.training.same_run import check_same_weights, other_devices
from interestyle_jax.training.step_window import check_finite
from interestyle_jax.training.task import Task

# Tasks that make their own samples.
WITHOUT_DATA = ("mapper",)
# Images in the grid of the first validation images.
GRID_ROWS = 8


def make_task(config: ml_collections.ConfigDict) -> Task:
    """The task that `config.task` names.

    Raises:
      InputError: unknown task.
    """
    if config.task == "encoder":
        if config.adversary.weight or config.adversary.delta_weight:
            from interestyle_jax.training.adversarial_encoder_task import AdversarialEncoderTask

            return AdversarialEncoderTask(config)
        if config.in_domain.weight:
            from interestyle_jax.training.in_domain_task import InDomainEncoderTask

            return InDomainEncoderTask(config)
        if config.known_latents.weight or config.known_latents.until:
            from interestyle_jax.training.supervised_encoder_task import SupervisedEncoderTask

            return SupervisedEncoderTask(config)
        from interestyle_jax.training.encoder_task import EncoderTask

        return EncoderTask(config)
    if config.task == "generator":
        from interestyle_jax.training.gan_task import GanTask

        return GanTask(config)
    if config.task == "distillation":
        from interestyle_jax.training.distillation_task import DistillationTask

        return DistillationTask(config)
    if config.task == "attributes":
        from interestyle_jax.training.attribute_task import AttributeTask

        return AttributeTask(config)
    if config.task == "clip":
        from interestyle_jax.training.clip_task import ClipTask

        return ClipTask(config)
    if config.task == "mapper":
        from interestyle_jax.training.mapper_task import MapperTask

        return MapperTask(config)
    known = ("encoder", "generator", "distillation", "attributes", "clip", "mapper")
    raise InputError(f"config.task: expected one of {', '.join(known)}, got {config.task!r}")


class Trainer:
    """One run: the compiled steps and what they work on."""

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: Path | RunFiles, command: list[str]
    ):
        """Sets up everything up to the first step, from the newest checkpoint if there is one.

        Raises:
          InputError: bad config, data or checkpoint; names the field or file.
        """
        check_same_config(json.loads(config.to_json()))
        self.config = config
        reads_data = config.task not in WITHOUT_DATA
        if reads_data and not config.data.dir:
            raise InputError("config.data.dir: expected a data set's directory or name, got ''")
        self.data_dir = locate_data_set(config.data.dir) if reads_data else None
        self.mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
        sharding.check_batch_size(
            self.mesh, config.batch_size, accumulate=config.get("accumulate", 1)
        )
        self.batch_sharding = sharding.batch_sharding(self.mesh)
        self.rows = sharding.local_rows(self.batch_sharding, config.batch_size)
        self.fingerprint = fingerprint(self.data_dir) if reads_data else ""
        self.task = make_task(config)
        check_same_content(
            {"config.data.dir": self.fingerprint}
            | {f"config.weights.{name}": x for name, x in self.task.weight_digests.items()}
        )
        self.fields = self.task.batch_fields
        if self.data_dir is not None:
            self.fields = present_fields(
                self.data_dir, self.fields, optional=self.task.optional_fields
            )
        self.seeded = SeededTask(self.task, config.seed)
        self.run = RunDirectory(workdir, config, command, writes=processes.is_first())
        self.checkpoints = Checkpoints(self.run.checkpoints, keep_latest=config.keep_latest)
        if (skew := processes.clock_skew()) > processes.CLOCK_SKEW_SECONDS:
            self.checkpoints.notices.append(
                f"clocks of the processes differ by {skew} s; times in logs are the first one's"
            )
        self.meta: dict[str, Any] | None = None
        self._set_up_state()
        self._compile()

    def _set_up_state(self) -> None:
        config = self.config
        abstract = jax.eval_shape(self.seeded.init, self.seeded.initial)
        self.places = step_places(config, self.mesh, abstract, self.seeded.frozen)
        self.frozen = sharding.put_tree(self.seeded.frozen, self.places.frozen)
        self.data: NumberedBatches | TrainingBatches
        if self.data_dir is None:
            self.data = NumberedBatches(config.batch_size, self.rows, seed=config.seed)
        else:
            self.data = training_batches(
                self.data_dir,
                config.data.train_split,
                batch_size=config.batch_size,
                seed=config.seed,
                fields=self.fields,
                flip=config.data.flip,
                num_workers=config.data.workers,
                rows=self.rows,
            )
        restored = self.checkpoints.restore(
            jax.tree.map(
                lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                abstract,
                self.places.state,
            )
        )
        if restored is None:
            self.step = 0
            init = jax.jit(self.seeded.init, out_shardings=self.places.state)
            self.state = init(self.seeded.initial)
            return
        if restored.meta["data_fingerprint"] != self.fingerprint:
            raise InputError(
                f"{config.data.dir}: the data set changed since the checkpoint of step "
                f"{restored.step} in {self.run.place}; give the old data or another --workdir"
            )
        check_same_weights(
            restored.meta,
            self.task.weight_digests,
            self.run.config,
            step=restored.step,
            workdir=self.run.place,
        )
        self.step, self.state, self.meta = restored.step, restored.state, restored.meta
        self.data.set_state(restored.data)
        self.run.forget_after(self.step)
        self.checkpoints.notices.append(f"{self.run.place}: resuming from step {self.step}")
        self.checkpoints.notices += other_devices(self.meta, self.run.config, self.mesh.size)

    def _compile(self) -> None:
        whole = sharding.replicated(self.mesh)

        def images(state, frozen, batch, index):
            first = {name: rows[:GRID_ROWS] for name, rows in batch.items()}
            return self.seeded.images(state, frozen, first, index)

        def measured(function):
            return jax.jit(function, in_shardings=(*self.places, whole), out_shardings=whole)

        def on_mesh(jitted):
            def call(*arguments):
                with jax.set_mesh(self.mesh):
                    return jitted(*arguments)

            return call

        self.train_step = on_mesh(jit_train_step(self.seeded, self.mesh, self.places))
        self.validate_step = on_mesh(measured(self.seeded.validate_step))
        self.images = on_mesh(measured(images))

    def next_batch(self) -> dict[str, jax.Array]:
        """The next batch of the training data, on the devices."""
        return sharding.put_batch(next(self.data), self.batch_sharding)

    def held_out_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Validation batches, the last one padded (field `valid`)."""
        if self.data_dir is None:
            return numbered_evaluation(
                self.config.batch_size, self.rows, num_samples=self.config.validation_samples
            )
        return evaluation_batches(
            self.data_dir,
            self.config.data.validation_split,
            batch_size=self.config.batch_size,
            fields=self.fields,
            num_samples=self.config.validation_samples,
            rows=self.rows,
        )

    def validate(self) -> dict[str, float]:
        """Means over the validation images, named `validation_*`."""
        totals: dict[str, list[np.ndarray]] = {}
        for index, batch in enumerate(self.held_out_batches()):
            valid = batch.pop("valid")
            placed = sharding.put_batch(batch, self.batch_sharding)
            figures = self.validate_step(self.state, self.frozen, placed, np.int32(index))
            values = jax.device_get(figures)
            for name, rows in values.items():
                rows = np.broadcast_to(rows, valid.shape)
                totals.setdefault(name, []).append(rows[valid])
        return {f"validation_{k}": float(np.concatenate(v).mean()) for k, v in totals.items()}

    def draw(self) -> None:
        """Saves the grid of the first `GRID_ROWS` validation images, whatever the batch."""
        grids, count = [], 0
        for index, batch in enumerate(self.held_out_batches()):
            valid = batch.pop("valid")[:GRID_ROWS]
            placed = sharding.put_batch(batch, self.batch_sharding)
            grid = self.images(self.state, self.frozen, placed, np.int32(index))
            grids.append(jax.device_get(grid)[valid])
            count += len(grids[-1])
            if count >= GRID_ROWS:
                break
        self.run.image(self.step, np.concatenate(grids)[:GRID_ROWS])

    def save(self) -> dict[str, float]:
        """Validates, saves a checkpoint, and writes `weights/` if it is the best so far."""
        figures = self.validate()
        if self.task.has_validation_loss:
            loss = figures["validation_loss"]
            check_finite(figures, self.step)
        else:
            loss = -float(self.step)
        best_step, best_loss = best_of(loss, self.step, self.meta)
        refused = None
        if best_step == self.step:
            try:
                self.export(loss if self.task.has_validation_loss else None)
            except InputError as error:
                # What cannot be stored as weights must not cost the training. Weights that are
                # there already stay the best.
                refused = error
                if self.meta is not None:
                    best_step, best_loss = self.meta["best_step"], self.meta["best_loss"]
        self.meta = {
            "config": self.run.config,
            "data_fingerprint": self.fingerprint,
            "weights": dict(self.task.weight_digests),
            "num_devices": self.mesh.size,
            "best_step": best_step,
            "best_loss": best_loss,
        }
        self.run.publish()
        self.checkpoints.save(
            self.step, self.state, data=self.data.get_state(), meta=self.meta, loss=loss
        )
        if refused is not None:
            self.checkpoints.wait()
            raise refused
        return figures

    def export_if_missing(self) -> None:
        """Writes lost `weights/` again where the checkpoint resumed from is the best."""
        best = self.meta is not None and self.meta["best_step"] == self.step
        if best and processes.of_first(not self.run.has_weights()):
            self.export(self.meta["best_loss"] if self.task.has_validation_loss else None)

    def export(self, loss: float | None) -> None:
        """Writes `weights/`, a weight directory with the facts of the run in its metadata."""
        facts = {"step": self.step, "validation_loss": loss, "config": self.run.config}
        state = sharding.to_host(self.task.exported(self.state))
        if processes.is_first():
            self.task.export(
                state,
                self.run.path / WEIGHTS,
                extra={"training": facts | self.run.facts},
            )

    def close(self) -> None:
        """Ends reading and logging."""
        self.run.close()
        self.data.close()
