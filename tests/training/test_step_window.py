"""Means and rates of steps: one fetch, and no time but that of the steps."""

import types

import jax
import jax.numpy as jnp
import pytest

from interestyle_jax.training import step_window
from interestyle_jax.training.step_window import StepWindow


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; `clock.now` moves it."""
    clock = types.SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(step_window, "time", clock)
    return clock


def add(window, clock, step, seconds, loss=1.0):
    clock.now += seconds
    window.add(step, {"loss": jnp.float32(loss)})


def test_only_steps_are_timed(clock):
    window = StepWindow(batch_size=8)
    add(window, clock, 1, 50.0)
    window.forget_time()
    assert window.images_per_second() is None
    add(window, clock, 2, 1.0)
    with window.paused():
        clock.now += 1000.0
    add(window, clock, 3, 3.0)
    assert window.close() == {"loss": 1.0, "images_per_second": 2 * 8 / 4.0}
    with window.paused():
        clock.now += 1000.0
    add(window, clock, 4, 1.0)
    assert window.close()["images_per_second"] == 8.0
    assert window.images_per_second() == 3 * 8 / 5.0


def test_metrics_of_a_window_are_fetched_in_one_call(clock, monkeypatch):
    calls, fetch = [], jax.device_get
    monkeypatch.setattr(step_window.jax, "device_get", lambda x: calls.append(x) or fetch(x))
    window = StepWindow(batch_size=1)
    for step in range(5):
        add(window, clock, step, 1.0, loss=step)
    assert window.close()["loss"] == 2.0
    assert [len(x) for x in calls] == [5]


def test_a_pause_loses_no_metrics(clock):
    window = StepWindow(batch_size=1)
    add(window, clock, 1, 1.0, loss=1.0)
    with window.paused():
        pass
    add(window, clock, 2, 1.0, loss=3.0)
    assert window.close() == {"loss": 2.0, "images_per_second": 1.0}


def test_what_is_not_finite_stops_the_pause(clock):
    window = StepWindow(batch_size=1)
    add(window, clock, 7, 1.0, loss=float("nan"))
    with pytest.raises(FloatingPointError, match="step 7: metric 'loss' is nan"), window.paused():
        pytest.fail("a state that is not finite would be saved")
