"""What the steps between two lines of the log give: means of their metrics, and their rate."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np


class StepWindow:
    """Collects the metrics and the time of steps; both are fetched seldom, to let steps run ahead.

    Only steps are timed: not what `paused` encloses, nor what is before `forget_time`.
    """

    def __init__(self, batch_size: int):
        """`batch_size`: images a step."""
        self._batch_size = batch_size
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._fetched: list[dict[str, float]] = []
        self._steps, self._seconds, self._since = 0, 0.0, time.monotonic()
        self._all_steps, self._all_seconds = 0, 0.0

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """A step and its scalar metrics, which may still be on their way."""
        self._pending.append((step, metrics))
        self._steps += 1

    def fetch(self) -> None:
        """Waits for the steps so far and fetches their metrics, all in one call.

        Raises:
          FloatingPointError: one is not finite; names the metric and the step.
        """
        steps, pending = [s for s, _ in self._pending], [m for _, m in self._pending]
        self._pending.clear()
        for step, metrics in zip(steps, jax.device_get(pending), strict=True):
            self._fetched.append({name: float(value) for name, value in metrics.items()})
            check_finite(self._fetched[-1], step)
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now

    def forget_time(self) -> None:
        """Leaves the steps so far out of the rates, as the first one, which compiles."""
        self.fetch()
        self._steps, self._seconds = 0, 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Encloses what is no step: validation, saving, drawing."""
        self.fetch()
        yield
        self._since = time.monotonic()

    def close(self) -> dict[str, float]:
        """Means since the last call, with `images_per_second` where a step was timed."""
        self.fetch()
        names = self._fetched[0] if self._fetched else ()
        means = {name: float(np.mean([one[name] for one in self._fetched])) for name in names}
        if self._steps:
            means["images_per_second"] = self._steps * self._batch_size / self._seconds
        self._all_steps += self._steps
        self._all_seconds += self._seconds
        self._fetched.clear()
        self._steps, self._seconds = 0, 0.0
        return means

    def images_per_second(self) -> float | None:
        """The rate over all closed windows; None where no step was timed."""
        if not self._all_steps:
            return None
        return self._all_steps * self._batch_size / self._all_seconds


def check_finite(metrics: dict[str, float], step: int) -> None:
    """Raises FloatingPointError naming the first metric that is not finite."""
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise FloatingPointError(f"step {step}: metric {name!r} is {value}; the run is stopped")
