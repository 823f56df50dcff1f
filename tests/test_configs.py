"""Every config trains a step in its smoke form; sizes and presets are checked."""

import importlib.util
import json
from pathlib import Path

import pytest

from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.errors import InputError
from interestyle_jax.training.presets import encoder_config
from interestyle_jax.training.train_loop import train
from interestyle_jax.training.trainer import make_task

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SMOKE = {
    "avatar_generator.py": ["smoke"],
    "demo.py": ["smoke"],
    "ablation_avatars.py": ["restyle,smoke", "smoke"],
}


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    """A few avatars of each size that a smoke config wants."""
    folder = tmp_path_factory.mktemp("avatars")
    for size in (16, 64):
        write_avatars(folder / str(size), sizes={"train": 8, "validation": 8}, size=size, workers=1)
    return folder


def load(name, argument):
    spec = importlib.util.spec_from_file_location(Path(name).stem, CONFIGS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def test_no_config_is_left_out():
    assert {p.name for p in CONFIGS.glob("*.py")} == set(SMOKE)


@pytest.mark.parametrize(
    ("name", "argument"), [(n, a) for n, arguments in SMOKE.items() for a in arguments]
)
def test_smoke_config_trains(name, argument, avatars, tmp_path):
    config = load(name, argument)
    config.num_steps = 1
    config.data.dir = str(avatars / ("16" if name == "avatar_generator.py" else "64"))
    report = train(config, tmp_path / "run", command=["test"])
    assert report["status"] == "completed"
    assert report["last_step"] == 1
    assert (tmp_path / "run" / "weights" / "metadata.json").is_file()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["step"] == 1


@pytest.mark.parametrize("name", ["avatar_generator.py", "demo.py"])
def test_unknown_size_is_refused(name):
    with pytest.raises(ValueError, match="expected .*smoke.*, got 'huge'"):
        load(name, "huge")


def test_unknown_preset_and_task_are_refused():
    with pytest.raises(ValueError, match="preset: expected one of interestyle"):
        encoder_config("pixel2style2pixel")
    config = encoder_config()
    config.task = "segmenter"
    with pytest.raises(InputError, match="config.task: expected"):
        make_task(config)


def test_presets_differ_as_the_table_says():
    ours, restyle = encoder_config("interestyle").method, encoder_config("restyle_psp").method
    assert (ours.gradient, restyle.gradient) == ("last", "each")
    assert ours.interest_loss and not restyle.interest_loss
    assert ours.filter_radii == (16.0, 9.0, 4.0, 1.0)
    assert set(restyle.filter_radii) == {0.0}
    assert ours.disentangle_weight > 0 and restyle.disentangle_weight == 0
    assert ours.num_iterations == restyle.num_iterations == 5
