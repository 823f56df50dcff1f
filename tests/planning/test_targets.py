"""Targets by name, and what is missing for them."""

import importlib.util

import jax
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.planning.targets import parse_target


@pytest.mark.parametrize(
    ("text", "platform", "count"),
    [
        ("v5e:4x4", "tpu", 16),
        ("v4:2x2x1", "tpu", 4),
        ("v6e:16x16", "tpu", 256),
        ("h100x8", "gpu", 8),
        ("a100", "gpu", 1),
        ("cpu", "cpu", 1),
    ],
)
def test_names(text, platform, count):
    target = parse_target(text)
    assert (target.chip.platform, target.num_devices) == (platform, count)


@pytest.mark.parametrize("text", ["", "v5e", "v5e:0x4", "v9:2x2", "h100x0", "tpu", "h200:2x2"])
def test_unknown_names_list_the_known_ones(text):
    with pytest.raises(InputError, match="--target: .*expected a TPU slice such as v5e:4x4"):
        parse_target(text)


def test_devices_of_the_processor_are_this_process_own():
    assert parse_target("cpux8").devices() == jax.devices("cpu")
    with pytest.raises(InputError, match="device_count=64"):
        parse_target("cpux64").devices()


@pytest.mark.parametrize(("target", "extra"), [("v5e:2x2", "plan-tpu"), ("h100", "plan-gpu")])
def test_a_missing_compiler_is_named_with_its_extra(monkeypatch, target, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(
        "interestyle_jax.planning.targets.topologies.get_topology_desc",
        lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no backend")),
    )
    with pytest.raises(InputError, match=extra):
        parse_target(target).devices()
