"""The benchmark of a training step: arithmetic on a task of known work, and a real tiny config."""

import json
import re
import types
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import pytest

from experiments import benchmark_step as benchmark_module
from experiments.benchmark_step import benchmark, main, markdown, matmul_flops_per_second
from interestyle_jax.config.files import read_config
from interestyle_jax.errors import InputError

CONFIG = (
    str(Path(__file__).resolve().parents[2] / "configs" / "avatar_generator.py")
    + ":adversarial,smoke"
)
TINY = [
    "--config.data.dir=",
    "--config.generator.resolution=8",
    "--config.generator.mapping_depth=1",
    "--config.gan.r1_gamma=0.0",
]
SIZE = 64


@flax.struct.dataclass
class State:
    step: jax.Array
    weight: jax.Array


class ProductTask:
    """A step is one matrix product, and every fourth step another one more."""

    batch_fields = ("clean", "interest_mask")
    optional_fields = ()
    frozen = {"other": jnp.ones((SIZE, SIZE))}
    initial = {}

    def init(self, key, initial):
        assert initial == self.initial
        return State(jnp.zeros((), jnp.int32), jax.random.normal(key, (SIZE, SIZE)))

    def phase(self, step):
        return ("twice",) if step % 4 == 0 else ()

    def train_step(self, key, state, frozen, batch, *, phase=()):
        weight = state.weight @ frozen["other"] / SIZE
        if "twice" in phase:
            weight = weight @ frozen["other"] / SIZE
        return State(state.step + 1, weight), {"loss": weight.mean() + batch["clean"].mean()}


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_module, "make_task", lambda config: ProductTask())
        return benchmark(read_config(CONFIG, overrides=TINY), steps=3)


def test_every_form_of_the_step_is_timed_and_weighed(result):
    plain, twice = result["steps"]
    assert (plain["phase"], plain["share"]) == ((), 0.75)
    assert (twice["phase"], twice["share"]) == (("twice",), 0.25)
    assert len(plain["seconds"]) == len(twice["seconds"]) == 3
    middle = [sorted(s["seconds"])[1] for s in (plain, twice)]
    assert result["seconds_per_step"] == pytest.approx(0.75 * middle[0] + 0.25 * middle[1])
    assert result["images_per_second"] == pytest.approx(8 / result["seconds_per_step"])


def test_work_is_counted(result):
    plain, twice = (s["flops"] for s in result["steps"])
    assert twice - plain == pytest.approx(2 * SIZE**3, rel=0.05)
    assert result["matmul_flops_per_second"] > 1e7
    assert result["num_parameters"] == SIZE**2 + 1


def test_memory_is_what_the_program_holds(result):
    memory = result["steps"][0]["memory"]
    # The weight, the frozen matrix and the batch come in; the weight's memory is used again.
    assert memory["arguments"] >= 2 * 4 * SIZE**2
    assert memory["aliased"] >= 4 * SIZE**2
    peak = result["peak_rss_bytes"]
    assert 50e6 < peak["before_compiling"] <= peak["after_the_steps"] < 100e9


def test_markdown_has_a_column_a_form(result):
    text = markdown("configs/x.py", result)
    assert "| | step | step + twice |" in text
    assert "| share of the steps | 0.750 | 0.250 |" in text
    assert "images: random" in text
    ratio = re.search(r"measured / floor \| ([\d.]+)", text).group(1)
    rate = result["matmul_flops_per_second"]
    step = result["steps"][0]
    # Eight devices share this CPU, and each has its part of the work.
    assert result["devices_per_matmul"] == 8
    expected = sorted(step["seconds"])[1] / (8 * step["flops"] / rate)
    assert float(ratio) == pytest.approx(expected, abs=0.01)


def test_matmul_rate_is_the_best_of_its_runs(monkeypatch):
    times = iter([0.0, 3.0, 10.0, 12.0])
    clock = types.SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr(benchmark_module, "time", clock)
    assert matmul_flops_per_second(4, repeats=2) == 2 * 4**3 / 2.0


@pytest.mark.slow
def test_a_real_config_from_the_command_line(capsys):
    assert main([f"--config={CONFIG}", "--steps=1", *TINY]) == 0
    text = capsys.readouterr().out
    found = json.loads(re.search(r"```json\n(.*)\n```", text).group(1))
    assert found["config"] == CONFIG
    assert found["batch_size"] == 8
    assert found["steps"][0]["flops"] > 1e6
    assert found["steps"][0]["compile_seconds"] > 0


def test_bad_input(capsys):
    with pytest.raises(InputError, match="steps: 0"):
        benchmark(read_config(CONFIG), steps=0)
    assert main(["--config=nowhere.py"]) == 2
    assert "nowhere.py" in capsys.readouterr().err
    assert main([f"--config={CONFIG}", "--config.unknown=1"]) == 2
    assert "unknown" in capsys.readouterr().err
