"""A run's set-up and its outward acts: compile, validate, save, draw.

The order of set-up: mesh, task, run directory, state, data, checkpoint, compile.
"""

from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.data.locate import locate_data_set
from interestyle_jax.data.pipeline import evaluation_batches, training_batches
from interestyle_jax.errors import InputError
from interestyle_jax.training import sharding
from interestyle_jax.training.checkpoints import Checkpoints, best_of
from interestyle_jax.training.run_directory import RunDirectory
from interestyle_jax.training.task import Task

VALIDATION_KEY = 1


def make_task(config: ml_collections.ConfigDict) -> Task:
    """The task that `config.task` names.

    Raises:
      InputError: unknown task.
    """
    if config.task == "encoder":
        from interestyle_jax.training.encoder_task import EncoderTask

        return EncoderTask(config)
    if config.task == "generator":
        from interestyle_jax.training.gan_task import GanTask

        return GanTask(config)
    raise InputError(f"config.task: expected 'encoder' or 'generator', got {config.task!r}")


class Trainer:
    """One run: the compiled steps and what they work on."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: Path, command: list[str]):
        """Sets up everything up to the first step, from the newest checkpoint if there is one.

        Raises:
          InputError: bad config, data or checkpoint; names the field or file.
        """
        if not config.data.dir:
            raise InputError("config.data.dir: expected a data set's directory or name, got ''")
        self.config = config
        self.data_dir = locate_data_set(config.data.dir)
        self.mesh = sharding.make_mesh(**config.mesh.to_dict())
        sharding.check_batch_size(self.mesh, config.batch_size)
        self.fingerprint = fingerprint(self.data_dir)
        self.task = make_task(config)
        self.run = RunDirectory(workdir, config, command)
        self.checkpoints = Checkpoints(
            self.run.path / "checkpoints", keep_latest=config.keep_latest
        )
        self.meta: dict[str, Any] | None = None
        self._set_up_state()
        self._compile()

    def _set_up_state(self) -> None:
        config = self.config
        self.key = jax.random.key(config.seed)
        abstract = jax.eval_shape(self.task.init, self.key, self.task.initial)
        self.state_sharding = sharding.state_sharding(self.mesh, abstract)
        whole = sharding.replicated(self.mesh)
        self.frozen = jax.device_put(self.task.frozen, whole)
        self.data = training_batches(
            self.data_dir,
            config.data.train_split,
            batch_size=config.batch_size,
            seed=config.seed,
            fields=self.task.batch_fields,
            flip=config.data.flip,
            num_workers=config.data.workers,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
        )
        restored = self.checkpoints.restore(
            jax.tree.map(
                lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                abstract,
                self.state_sharding,
            )
        )
        if restored is None:
            self.step = 0
            init = jax.jit(self.task.init, out_shardings=self.state_sharding)
            self.state = init(self.key, self.task.initial)
            return
        if restored.meta["data_fingerprint"] != self.fingerprint:
            raise InputError(
                f"{config.data.dir}: the data set changed since the checkpoint of step "
                f"{restored.step} in {self.run.path}; give the old data or another --workdir"
            )
        self.step, self.state, self.meta = restored.step, restored.state, restored.meta
        self.data.set_state(restored.data)
        self.run.forget_after(self.step)
        self.checkpoints.notices.append(f"{self.run.path}: going on from step {self.step}")

    def _compile(self) -> None:
        whole = sharding.replicated(self.mesh)
        self.batch_sharding = sharding.batch_sharding(self.mesh)
        places = (self.state_sharding, whole, self.batch_sharding, whole)
        self.train_step = jax.jit(
            self.task.train_step,
            in_shardings=places,
            out_shardings=(self.state_sharding, whole),
            donate_argnums=0,
            static_argnums=4,
        )
        self.validate_step = jax.jit(
            self.task.validate_step, in_shardings=places, out_shardings=whole
        )
        self.pictures = jax.jit(self.task.pictures, in_shardings=places, out_shardings=whole)

    def held_out_batches(self):
        """Validation batches, the last one padded (field `valid`)."""
        return evaluation_batches(
            self.data_dir,
            self.config.data.validation_split,
            batch_size=self.config.batch_size,
            fields=self.task.batch_fields,
            num_samples=self.config.validation_samples,
        )

    def validate(self) -> dict[str, float]:
        """Means over the validation pictures, named `validation_*`."""
        totals: dict[str, list[np.ndarray]] = {}
        key = jax.random.key(VALIDATION_KEY)
        for batch in self.held_out_batches():
            valid = batch.pop("valid")
            placed = sharding.put_batch(batch, self.batch_sharding)
            values = jax.device_get(self.validate_step(self.state, self.frozen, placed, key))
            for name, rows in values.items():
                rows = np.broadcast_to(rows, valid.shape)
                totals.setdefault(name, []).append(rows[valid])
        return {f"validation_{k}": float(np.concatenate(v).mean()) for k, v in totals.items()}

    def draw(self) -> None:
        """Saves the grid of the first validation batch."""
        batch = next(iter(self.held_out_batches()))
        batch.pop("valid")
        placed = sharding.put_batch(batch, self.batch_sharding)
        key = jax.random.key(VALIDATION_KEY)
        grid = jax.device_get(self.pictures(self.state, self.frozen, placed, key))
        self.run.picture(self.step, np.asarray(grid))

    def save(self) -> dict[str, float]:
        """Validates, saves a checkpoint, and writes `weights/` if it is the best so far."""
        figures = self.validate()
        if self.task.has_validation_loss:
            loss = figures["validation_loss"]
            check_finite(figures, self.step)
        else:
            loss = -float(self.step)
        best_step, best_loss = best_of(loss, self.step, self.meta)
        self.meta = {
            "config": self.run.config,
            "data_fingerprint": self.fingerprint,
            "best_step": best_step,
            "best_loss": best_loss,
        }
        if best_step == self.step:
            self.export(loss if self.task.has_validation_loss else None)
        self.checkpoints.save(
            self.step, self.state, data=self.data.get_state(), meta=self.meta, loss=loss
        )
        return figures

    def export_if_missing(self) -> None:
        """Writes lost `weights/` again where the checkpoint gone on from is the best."""
        best = self.meta is not None and self.meta["best_step"] == self.step
        if best and not (self.run.path / "weights").exists():
            self.export(self.meta["best_loss"] if self.task.has_validation_loss else None)

    def export(self, loss: float | None) -> None:
        """Writes `weights/`, a weight directory with the facts of the run in its metadata."""
        facts = {"step": self.step, "validation_loss": loss, "config": self.run.config}
        if jax.process_index() == 0:
            self.task.export(
                jax.device_get(self.state),
                self.run.path / "weights",
                extra={"training": facts | self.run.facts},
            )

    def close(self) -> None:
        """Ends reading and logging."""
        self.run.close()
        self.data.close()


def check_finite(metrics: dict[str, float], step: int) -> None:
    """Raises FloatingPointError naming the first metric that is not finite."""
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise FloatingPointError(f"step {step}: metric {name!r} is {value}; the run is stopped")
