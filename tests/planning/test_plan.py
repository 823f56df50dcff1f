"""`plan` for this process' own devices: the tables, without weights or data."""

import dataclasses
import json

import pytest

from interestyle_jax.cli import main
from interestyle_jax.config.files import read_config
from interestyle_jax.errors import InputError
from interestyle_jax.models.backend import built_for
from interestyle_jax.planning import plan as plan_module
from interestyle_jax.planning import programs as programs_module
from interestyle_jax.planning import targets
from interestyle_jax.planning.plan import make_plan, markdown
from interestyle_jax.planning.programs import programs
from interestyle_jax.planning.stand_ins import use_stand_ins
from interestyle_jax.planning.targets import parse_target

TINY = ["resolution=16", "w_dim=8", "z_dim=8", "mapping_depth=1", "channel_max=4"]
ENCODER = {
    "type": "BackboneEncoder",
    "input_size": 16,
    "units": (1, 1),
    "widths": (4, 4, 8),
    "head_width": 4,
}


@pytest.fixture(scope="module")
def make_config():
    def make(**fields):
        config = read_config("interestyle_ffhq")
        with config.unlocked():
            config.encoder = ENCODER
            config.method.filter_reference = 16
            config.weights.lpips = config.weights.id = ""
            config.loss.id = config.loss.lpips = 0.0
            config.batch_size = 8
            config.method.num_iterations = 1
            config.method.disentangle_weight = 0.0
            config.update(fields)
        return config

    return make


@pytest.fixture(scope="module")
def plan(make_config):
    generator = {k: int(v) for k, v in (text.split("=") for text in TINY)}
    return make_plan(
        make_config(), parse_target("cpux8"), generator=generator, tell=lambda line: None
    )


def test_memory_work_and_collectives_of_a_step(plan):
    told = plan["stand_ins"]["generator"]
    assert told == "weights/stylegan2_ffhq is not here, a Generator of zeros stands in"
    (step,) = plan["programs"]
    kinds = step["bytes_by_kind"]
    assert kinds["optimizer"] > 2 * kinds["parameters"] > 0
    # A device has one image of the batch and its mask, as bytes.
    assert kinds["batch"] == 16 * 16 * 4
    # A step does not use the generator's mapping, and programs take no more than they use.
    assert 1.0 <= sum(kinds.values()) / step["memory"]["arguments"] < 1.1
    assert step["flops_per_image"] > 0 and step["fits"] is None
    assert {c["kind"] for c in step["collectives"]} == {"all-reduce"}
    assert json.loads(json.dumps(plan)) == plan


# The fast twin counts the collectives of one BatchNorm (tests/models/test_batch_norm.py).
@pytest.mark.slow
def test_batch_norm_of_each_device_leaves_the_gradients_messages(make_config, plan):
    """The compiler joins these with the running statistics' and the metrics'."""
    generator = {k: int(v) for k, v in (text.split("=") for text in TINY)}
    config = make_config(batch_norm="local")
    local = make_plan(config, parse_target("cpux8"), generator=generator, tell=lambda line: None)
    everywhere, own = (
        sum(c["count"] for c in made["programs"][0]["collectives"]) for made in (plan, local)
    )
    # 1 and 23 when this was written.
    assert own <= 3 and everywhere >= 18


@pytest.mark.parametrize(
    ("memory", "want", "compiled"),
    [
        (40.0, 32, [16, 32]),
        (300.0, 256, [16, 256]),
        # It grows faster than two batches say.
        (135.0, 64, [16, 128, 64]),
        (12.0, 8, [16]),
        (6.0, None, [4, 4]),
        (7.5, 4, [4, 4]),
    ],
)
def test_the_largest_batch_takes_few_compilations(make_config, monkeypatch, memory, want, compiled):
    """Of a program that needs 3 and an image 1; 16 more from a batch of 128 on."""
    chip = dataclasses.replace(targets.CHIPS["h100"], memory=memory)
    monkeypatch.setitem(targets.CHIPS, "h100", chip)
    config, asked = make_config(batch_size=8), []
    monkeypatch.setattr(plan_module, "programs", lambda *_, **__: ["small", "large"])

    def compile_(program, config, target, tell):
        batch = config.batch_size
        asked.append(batch)
        needed = 2 + batch + 16 * (batch >= 128) + (program == "large")
        return {"fits": needed <= memory} | ({"needed_bytes": needed} if needed <= memory else {})

    monkeypatch.setattr(plan_module, "_compile", compile_)
    monkeypatch.setattr(plan_module, "use_stand_ins", lambda *_, **__: {})
    plan = make_plan(config, parse_target("h100x4"), largest_batch=True, tell=print)
    assert plan["largest_batch"] == want and config.batch_size == 8
    assert asked == [8, 8, *compiled]


def test_the_table_has_what_a_reader_asks_for(plan):
    text = markdown(plan)
    for words in ("devices 8, batch 8 (1 a device)", "temporaries", "**needed**", "all-reduce"):
        assert words in text


def test_what_cannot_be_planned_is_refused(make_config, tmp_path):
    target = parse_target("cpu")
    with pytest.raises(InputError, match="config.task: attributes"):
        make_plan(read_config("avatar_attributes"), target)
    with pytest.raises(InputError, match="evaluate is an encoder's"):
        make_plan(read_config("avatar_generator"), target, command="evaluate")
    with pytest.raises(InputError, match="memory of cpu"):
        make_plan(make_config(), target, largest_batch=True, tell=lambda line: None)
    with pytest.raises(InputError, match="has no field side"):
        make_plan(make_config(), target, generator={"side": 3})
    assert main(["plan", "--config=demo", "--target=cpu", "--generator=resolution"]) == 2
    assert main(["plan", "--config=demo", "--target=v3:2x2"]) == 2


def test_an_inversion_is_planned_as_the_target_runs_it(make_config, tmp_path, monkeypatch):
    """Accelerators scan over the iterations; the optimizer stays at home."""
    generator = {k: int(v) for k, v in (text.split("=") for text in TINY)}
    config, target = make_config(), parse_target("cpux8")
    use_stand_ins(config, tmp_path, generator=generator)
    (here,) = programs(config, target, command="invert")
    assert "optimizer" not in here.bytes_by_kind and here.work.flops > 0
    monkeypatch.setattr(programs_module, "built_for", lambda _: built_for("tpu"))
    (there,) = programs(config, target, command="invert")
    whiles = [p.lowered.as_text().count("stablehlo.while") for p in (here, there)]
    assert whiles == [0, 1]
