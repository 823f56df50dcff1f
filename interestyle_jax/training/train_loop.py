"""The host loop around a task's pure step.

One loop trains the encoder and the generator. Everything random comes from `config.seed` and the
step's number, so a run that is killed and started again ends with the same parameters as one that
was not.
"""

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from interestyle_jax.errors import reason
from interestyle_jax.training import processes
from interestyle_jax.training.trainer import Trainer, check_finite


class _Stop:
    """Remembers SIGTERM, so that the loop can save and leave between two steps.

    Among several processes JAX remembers it, and finds the step at which all of them leave.
    """

    def __init__(self):
        self.asked, self._before = False, None

    def __enter__(self):
        if jax.process_count() > 1:
            return self
        try:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        except ValueError:  # Only the main thread may set handlers.
            self._before = None
        return self

    def _remember(self, *_):
        self.asked = True

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def train(
    config: ml_collections.ConfigDict, workdir: str | Path, *, command: list[str]
) -> dict[str, Any]:
    """Trains until `config.num_steps`, or until SIGTERM, and writes the run's directory.

    Args:
      config: from `training.presets`.
      workdir: the run's directory; one that holds a run of the same config is gone on with.
      command: the command line, for the records.

    Returns:
      What `report.json` holds. `status` is "completed" or "preempted".

    Raises:
      InputError: bad config, data or checkpoint.
      FloatingPointError: a metric was not finite; names the metric and the step.
    """
    trainer = Trainer(config, Path(workdir), command)
    for notice in trainer.checkpoints.notices if processes.is_first() else ():
        print(notice, file=sys.stderr)
    trainer.export_if_missing()
    done = trainer.run.finished_report() if trainer.step >= config.num_steps else None
    if processes.all_of(done is not None):
        trainer.close()
        trainer.checkpoints.close()
        return done
    status, error = "failed", None
    begun, first_step, compiled = time.monotonic(), trainer.step, None
    try:
        with _Stop() as stop, _bar(trainer) as bar:
            compiled = _run(trainer, stop, bar)
        # A run whose last save fails is not completed.
        trainer.checkpoints.wait()
        status = "preempted" if trainer.step < config.num_steps else "completed"
    except Exception as caught:
        error = reason(caught)
        raise
    finally:
        seconds = time.monotonic() - (compiled or begun)
        done = max(0, trainer.step - first_step - 1)
        meta = trainer.meta or {"best_step": None, "best_loss": None}
        report = {
            "status": status,
            "error": error,
            "last_step": trainer.step,
            "best_step": meta["best_step"],
            "best_loss": meta["best_loss"] if trainer.task.has_validation_loss else None,
            "images_per_second": done * config.batch_size / seconds if done else None,
            "seconds": time.monotonic() - begun,
            "devices": jax.device_count(),
            "processes": jax.process_count(),
        }
        if status == "failed":
            _end(trainer, report)
    trainer.run.report(report)
    trainer.close()
    trainer.checkpoints.close()
    return report


def _end(trainer: Trainer, report: dict[str, Any]) -> None:
    """Ends a run after an error, which is the one to tell: a full disk refuses the rest too."""
    for act in (lambda: trainer.run.report(report), trainer.close, trainer.checkpoints.settle):
        with contextlib.suppress(Exception):
            act()


def _bar(trainer: Trainer) -> tqdm:
    """The progress bar of the first process; where it ends, the next line on stderr is its own."""
    return tqdm(
        total=trainer.config.num_steps,
        initial=trainer.step,
        unit="step",
        disable=not processes.is_first(),
        file=sys.stderr,
        mininterval=1.0,
    )


def _run(trainer: Trainer, stop: _Stop, bar: tqdm) -> float | None:
    """Steps until the end or a stop; returns the time at which the first step was done."""
    config, pending, compiled = trainer.config, [], None
    window, window_step = time.monotonic(), trainer.step
    saved = trainer.step
    while trainer.step < config.num_steps:
        batch = trainer.next_batch()
        phase = trainer.task.phase(trainer.step)
        trainer.state, metrics = trainer.train_step(trainer.state, trainer.frozen, batch, phase)
        trainer.step += 1
        pending.append((trainer.step, metrics))
        if compiled is None:
            jax.block_until_ready(metrics)
            compiled = window = time.monotonic()
            window_step = trainer.step
        bar.update()
        last = trainer.step == config.num_steps
        leave = stop.asked or trainer.checkpoints.reached_preemption(trainer.step)
        if trainer.step % config.log_every == 0 or last or leave:
            scalars = _flush(pending)
            now = time.monotonic()
            images = (trainer.step - window_step) * config.batch_size
            if images:
                scalars["images_per_second"] = images / (now - window)
            trainer.run.log(trainer.step, scalars)
            bar.set_postfix(
                loss=f"{scalars['loss']:.4f}", img_s=f"{scalars.get('images_per_second', 0):.1f}"
            )
            window, window_step = now, trainer.step
        if trainer.step % config.checkpoint_every == 0 or last or leave:
            _flush(pending)
            trainer.run.log(trainer.step, trainer.save())
            saved = trainer.step
        if trainer.step % config.picture_every == 0 or last:
            trainer.draw()
        if leave and not last:
            break
    if trainer.step == config.num_steps and saved != trainer.step:
        trainer.save()
    return compiled


def _flush(pending: list[tuple[int, dict[str, jax.Array]]]) -> dict[str, float]:
    """Fetches the steps since the last call, checks each, and returns their means."""
    fetched = [
        (step, {name: float(value) for name, value in jax.device_get(metrics).items()})
        for step, metrics in pending
    ]
    pending.clear()
    for step, metrics in fetched:
        check_finite(metrics, step)
    if not fetched:
        return {}
    names = fetched[0][1]
    return {name: float(np.mean([metrics[name] for _, metrics in fetched])) for name in names}
