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
