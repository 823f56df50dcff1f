"""Checkpoints of a run: state, data position and config in one composite Orbax step.

A step is whole or absent: Orbax writes beside it and renames, or in a bucket marks it at the end.
What a killed save left behind is cleared, and a step whose files were damaged later is quarantined,
never deleted. An error of the machine moves nothing.
"""

import contextlib
import dataclasses
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from interestyle_jax.buckets import bucket_error, bucket_url
from interestyle_jax.errors import (
    InputError,
    MachineError,
    file_error,
    is_machine_failure,
    reason,
)
from interestyle_jax.parallel import processes
from interestyle_jax.training.checkpoint_damage import find_damage, write_digests

PyTree = Any
BROKEN = "broken_"
UNFINISHED = "*.orbax-checkpoint-tmp*"
# What makes a step of a bucket whole.
COMMITTED = "commit_success.txt"
# Of the program itself, in a bucket too.
FAULTS = AssertionError | AttributeError | IndexError | KeyError | TypeError
# What TensorStore says of a bucket's network and rights, not of its content.
UNREACHABLE = re.compile("UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|ABORTED")


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint in memory: state, data position, and the facts saved with it."""

    step: int
    state: PyTree
    data: dict[str, Any]
    meta: dict[str, Any]


class Checkpoints:
    """Keeps the latest checkpoints of a run and the one of lowest validation loss."""

    def __init__(self, directory: Path, *, keep_latest: int):
        """Opens or makes `directory`.

        Raises:
          InputError: it cannot be made.
        """
        self._in_bucket = bucket_url(directory) is not None
        self.directory = directory if self._in_bucket else Path(directory).resolve()
        try:
            # A bucket has no folders; it would be made where a name is mistyped.
            if not self._in_bucket:
                self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_error(error, f"{directory}: cannot be made") from error
        with self._reading():
            self.notices = self._clear_unfinished()
        policies = ocp.checkpoint_managers
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep_latest),
                    policies.BestN(get_metric_fn=lambda m: -m["loss"], n=1),
                ]
            ),
            async_options=ocp.AsyncOptions(
                timeout_secs=3600, post_finalization_callback=self._write_digests
            ),
        )
        with self._reading():
            self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(self.directory, options=self._options)

    def _write_digests(self) -> None:
        """Runs in the background, when all of a step is written and before it gets its name."""
        # Of its objects a bucket has checksums itself.
        if processes.is_first() and not self._in_bucket:
            for path in self.directory.glob(UNFINISHED):
                write_digests(path)

    def _clear_unfinished(self) -> list[str]:
        notices = []
        if processes.is_first():
            for path in self._unfinished():
                self._remove(path)
                notices.append(f"{path}: a save that was cut off; removed")
        processes.meet("cleared")
        return notices

    def _remove(self, path: Any) -> None:
        if self._in_bucket:
            path.rmtree()
        else:
            shutil.rmtree(path, ignore_errors=True)

    def _unfinished(self) -> list[Path]:
        if not self._in_bucket:
            return sorted(self.directory.glob(UNFINISHED))
        if not self.directory.exists():
            return []
        steps = sorted(path for path in self.directory.iterdir() if path.name.isdecimal())
        return [path for path in steps if not (path / COMMITTED).exists()]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Errors of a bucket in words."""
        try:
            yield
        except Exception as error:
            if not self._in_bucket or isinstance(error, FAULTS | InputError | MachineError):
                raise
            raise bucket_error(error, f"{self.directory}: cannot be read") from error

    def steps(self) -> list[int]:
        """Whole checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        data: dict[str, Any],
        meta: dict[str, Any],
        loss: float,
    ) -> None:
        """Begins to save in the background; `wait` ends it.

        Raises:
          InputError: this or the save before may not be written.
          MachineError: the disk is full or fails.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(meta),
        )
        with self._saving():
            self._manager.save(step, args=items, metrics={"loss": loss}, force=True)

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._in_bucket and not isinstance(error, FAULTS):
                message = f"{self.directory}: a checkpoint could not be saved"
                raise bucket_error(error, message) from error
            # TensorStore reports a full disk as ValueError with the system's words in it.
            if not (isinstance(error, OSError) or is_machine_failure(error)):
                raise
            raise file_error(error, f"{self.directory}: a checkpoint could not be saved") from error

    def wait(self) -> None:
        """Ends the save in the background.

        Raises:
          InputError, MachineError: as `save`.
        """
        with self._saving():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, abstract_state: PyTree) -> Restored | None:
        """Reads the newest checkpoint that is whole; the processes agree on it first.

        Args:
          abstract_state: the state's tree of `jax.ShapeDtypeStruct` with shardings.

        Returns:
          None where there is none. What a checksum or Orbax proves damaged is quarantined as
          `broken_checkpoints/STEP`, with a notice in `notices`.

        Raises:
          InputError: all checkpoints are damaged, or were written by another architecture.
          OSError, MemoryError, MachineError: the machine failed, here or on another process; every
            checkpoint stays where it is.
        """
        damaged = {}
        for candidate in processes.of_first(self.steps())[::-1]:
            damage = self._damage(candidate)
            if damage is not None:
                damaged[candidate] = damage
                continue
            restored = self._restore(candidate, abstract_state)
            for broken, damage in damaged.items():
                self._set_aside(broken, damage)
            return restored
        if damaged:
            newest, damage = next(iter(damaged.items()))
            raise InputError(
                f"{self.directory / str(newest)}: no checkpoint here is whole: {damage}"
            )
        return None

    def _damage(self, step: int) -> str | None:
        """The damage that one of the processes found; each looks at its share of the files."""
        if self._in_bucket:
            return None
        share = (jax.process_index(), jax.process_count())
        path = self.directory / str(step)
        found = processes.together(lambda: find_damage(path, share=share))
        return next((damage for damage in found if damage is not None), None)

    def _restore(self, step: int, abstract_state: PyTree) -> Restored:
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state),
            data=ocp.args.JsonRestore(),
            meta=ocp.args.JsonRestore(),
        )
        try:
            found = self._manager.restore(step, args=items)
        except Exception as error:
            path = self.directory / str(step)
            if self._in_bucket and UNREACHABLE.search(f"{error} {error.__cause__}"):
                raise bucket_error(error, f"{path}: cannot be read") from error
            if is_machine_failure(error):
                raise file_error(error, f"{path}: cannot be read") from error
            if not isinstance(error, KeyError | TypeError | ValueError):
                raise
            # The files are whole, so it is their tree or an array's shape that does not fit.
            raise InputError(
                f"{path}: cannot be read into this config's networks: {reason(error)}"
            ) from error
        return Restored(step, found["state"], found["data"], found["meta"])

    def _set_aside(self, step: int, damage: str) -> None:
        path = self.directory / str(step)
        aside = self.directory.parent / f"{BROKEN}{self.directory.name}" / str(step)
        if processes.is_first():
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                shutil.rmtree(aside)
            os.rename(path, aside)
        processes.meet(f"set_aside_{step}")
        self._manager.close()
        self._manager = self._open()
        self.notices.append(f"{path}: damaged ({damage}); moved to {aside}")

    def reached_preemption(self, step: int) -> bool:
        """Whether the scheduler asked all processes to save and leave at this step."""
        return self._manager.reached_preemption(step)

    def settle(self) -> None:
        """Lets a save in the background end, after an error elsewhere, which is the one to report.

        Among several processes it would wait for one that may be gone.
        """
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends a save in the background and closes the manager."""
        self.wait()
        self._manager.close()


def best_of(loss: float, step: int, meta: dict[str, Any] | None) -> tuple[int, float]:
    """(step, loss) of the best checkpoint, after one more; NaN never is the best."""
    if meta and not (loss < meta["best_loss"]) and not math.isnan(meta["best_loss"]):
        return meta["best_step"], meta["best_loss"]
    return step, loss
