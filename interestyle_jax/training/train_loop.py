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
from tqdm import tqdm

from interestyle_jax.errors import reason
from interestyle_jax.parallel import processes
from interestyle_jax.training.run_files import RunFiles
from interestyle_jax.training.same_run import with_older_fields
from interestyle_jax.training.step_window import StepWindow
from interestyle_jax.training.trainer import Trainer


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
      config: from `config.presets`.
      workdir: the run's directory, or gs://BUCKET/FOLDER; one that holds a run of the same config
        is resumed.
      command: the command line, for the records.

    Returns:
      What `report.json` holds. `status` is "completed" or "preempted".

    Raises:
      InputError: bad config, data or checkpoint.
      MachineError: disk, memory or network fail.
      FloatingPointError: a metric was not finite; names the metric and the step.
    """
    with contextlib.closing(RunFiles(workdir)) as files:
        return _train(config, files, command)


def _train(
    config: ml_collections.ConfigDict, files: RunFiles, command: list[str]
) -> dict[str, Any]:
    config, notices = with_older_fields(config, files.path)
    trainer = Trainer(config, files, command)
    notices += trainer.checkpoints.notices
    for notice in notices if processes.is_first() else ():
        print(notice, file=sys.stderr)
    trainer.export_if_missing()
    done = trainer.run.finished_report() if trainer.step >= config.num_steps else None
    if processes.all_of(done is not None):
        trainer.close()
        trainer.checkpoints.close()
        return done
    status, error, window = "failed", None, StepWindow(config.batch_size)
    begun = time.monotonic()
    try:
        with _Stop() as stop, _bar(trainer) as bar:
            _run(trainer, stop, bar, window)
        # A run whose last save fails is not completed.
        trainer.checkpoints.wait()
        status = "preempted" if trainer.step < config.num_steps else "completed"
    except Exception as caught:
        error = reason(caught)
        raise
    finally:
        meta = trainer.meta or {"best_step": None, "best_loss": None}
        report = {
            "status": status,
            "error": error,
            "last_step": trainer.step,
            "best_step": meta["best_step"],
            "best_loss": meta["best_loss"] if trainer.task.has_validation_loss else None,
            "images_per_second": window.images_per_second(),
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
    """Ends a run after an error, which is the one to report: a full disk refuses the rest too."""
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


def _run(trainer: Trainer, stop: _Stop, bar: tqdm, window: StepWindow) -> None:
    """Steps until the end or a stop."""
    config, first_step, saved = trainer.config, trainer.step, trainer.step
    while trainer.step < config.num_steps:
        batch = trainer.next_batch()
        phase = trainer.task.phase(trainer.step)
        trainer.state, metrics = trainer.train_step(trainer.state, trainer.frozen, batch, phase)
        trainer.step += 1
        window.add(trainer.step, metrics)
        if trainer.step == first_step + 1:
            window.forget_time()
        bar.update()
        last = trainer.step == config.num_steps
        leave = stop.asked or trainer.checkpoints.reached_preemption(trainer.step)
        if trainer.step % config.log_every == 0 or last or leave:
            scalars = window.close()
            trainer.run.log(trainer.step, scalars)
            bar.set_postfix(
                loss=f"{scalars['loss']:.4f}", img_s=f"{scalars.get('images_per_second', 0):.1f}"
            )
        if trainer.step % config.checkpoint_every == 0 or last or leave:
            with window.paused():
                trainer.run.log(trainer.step, trainer.save())
                trainer.run.publish()
            saved = trainer.step
        if trainer.step % config.image_every == 0 or last:
            with window.paused():
                trainer.draw()
        if leave and not last:
            break
    if trainer.step == config.num_steps and saved != trainer.step:
        trainer.save()
