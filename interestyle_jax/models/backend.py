"""Which of a network's equal forms a backend computes fastest; the one place that says so."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax

# Of a Generator, see its `form`. (`strided_conv` has what differs in one convolution.)
FORMS = {"cpu": "separable", "gpu": "separable", "tpu": "blocks"}

_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


def platform() -> str:
    """What networks are built for ("cpu", "gpu", "tpu"): this process, unless `built_for` says."""
    return _target.get() or jax.default_backend()


def compute_fields() -> dict[str, Any]:
    """The compute fields (`registry.build`) that the backend decides, {field: value}."""
    return {"form": FORMS.get(platform(), "separable")}


def refinement_loop(on: str | None = None) -> str:
    """How iterations of one kind are computed, "unroll" or "scan" (`inversion.refinement`).

    Scanned they compile once, not N times; XLA's code for CPUs runs slower in a loop.

    Args:
      on: "cpu", "gpu" or "tpu"; `platform()` by default.
    """
    return "unroll" if (on or platform()) == "cpu" else "scan"


def joins_passes() -> bool:
    """Whether a step's last iteration and its disentanglement pass are one call of each network.

    Kernels are read, and their gradients made and added, once; a program of half the size. On CPUs
    the networks are bound by their work, which is the same.
    """
    return platform() != "cpu"


@contextlib.contextmanager
def built_for(platform: str) -> Iterator[None]:
    """Networks built here are those of another backend than this process has.

    Args:
      platform: "cpu", "gpu" or "tpu".
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
