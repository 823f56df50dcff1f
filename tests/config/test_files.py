"""Config files and overrides, and what users get wrong in them."""

from pathlib import Path

import pytest

from interestyle_jax.config.files import read_config
from interestyle_jax.errors import InputError

CONFIG = """
from ml_collections import ConfigDict


def get_config(argument=""):
    if argument not in ("", "smoke"):
        raise ValueError(f"argument {argument!r},\\nexpected smoke")
    return ConfigDict({
        "seed": 0,
        "batch_size": 2 if argument else 8,
        "data": {"dir": "", "flip": True},
        "method": {"filter_radii": (16.0, 9.0), "dilation_radius": 2},
        "optimizer": {"learning_rate": 1e-4},
    })
"""


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG)
    return str(path)


def test_overrides_take_the_fields_types(config_path):
    config = read_config(
        config_path + ":smoke",
        overrides=[
            "--config.seed=3",
            "--config.data.dir=some where",
            "--noconfig.data.flip",
            "--config.optimizer.learning_rate=1",
            "--config.method.filter_radii=(4.0, 1.0, 0.5)",
            "--config.method.dilation_radius",
            "5",
        ],
    )
    assert config.seed == 3
    assert config.batch_size == 2
    assert config.data.to_dict() == {"dir": "some where", "flip": False}
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.method.filter_radii == (4.0, 1.0, 0.5)
    assert config.method.dilation_radius == 5
    assert config.is_locked


def test_a_config_without_argument_is_its_default(config_path):
    assert read_config(config_path).batch_size == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.batchsize=3", "unknown config field config.batchsize; close: config.batch_size"),
        ("--config.learning_rate=3", "close: config.optimizer.learning_rate"),
        ("--config.method.filter_radius=3", "close: config.method.filter_radii"),
        ("--config.zzzz=3", "fields: batch_size, data, method, optimizer, seed"),
        ("--config.data.dir.deep=3", "unknown config field config.data.dir.deep"),
        ("--config.seed=many", "config.seed=many"),
        ("--config.data=3", "config.data=3"),
        ("--config.seed", "config.seed"),
        ("--other=3", "unknown argument --other=3"),
        ("stray", "unexpected argument 'stray'"),
    ],
)
def test_a_wrong_override_is_named_in_one_line(config_path, override, message):
    with pytest.raises(InputError) as caught:
        read_config(config_path, overrides=[override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:", "line 1"),
        ("x = 1", "expected a function get_config()"),
        ("\nx = y", "line 2: NameError: name 'y' is not defined"),
        ("import nowhere_to_be_found", "line 1: ModuleNotFoundError: No module named"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_config(size):\n    return 1", "TypeError: get_config() missing 1 required"),
        ("x = '\0'", "null bytes"),
        ("def get_config(): return {'seed': 1}", "returned dict, expected a ConfigDict"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_config(str(path))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_file_other_suffix_and_wrong_argument(tmp_path, config_path):
    with pytest.raises(InputError, match="none.py: config file not found; .* demo, .*interestyle_"):
        read_config(str(tmp_path / "none.py"))
    text = tmp_path / "config.txt"
    text.write_text(CONFIG)
    with pytest.raises(InputError, match="expected a Python file"):
        read_config(str(text))
    with pytest.raises(InputError, match="argument 'large', expected smoke"):
        read_config(config_path + ":large")


@pytest.mark.parametrize("name", ["demo", "demo:smoke", "ablation_ffhq:ind,smoke"])
def test_shipped_config_is_found_by_name(name, tmp_path, monkeypatch):
    name_of_file, colon, argument = name.partition(":")
    file = Path(__file__).resolve().parents[2] / "configs" / f"{name_of_file}.py"
    # Anywhere, and beside a folder of that name.
    (tmp_path / name_of_file).mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_config(name) == read_config(f"{file}{colon}{argument}")


@pytest.mark.parametrize(
    "words", [["--config.preset=restyle_psp"], ["--config.preset", "restyle_psp"]]
)
def test_preset_brings_its_method_and_single_fields_come_after_it(words):
    path = str(Path(__file__).resolve().parents[2] / "configs" / "demo.py")
    ours = read_config(path)
    config = read_config(path, overrides=["--config.method.gradient=through", *words])
    assert ours.preset == "interestyle" and ours.method.interest_loss
    assert config.preset == "restyle_psp" and not config.method.interest_loss
    assert config.method.disentangle_weight == 0.0
    assert config.method.gradient == "through"
    assert config.encoder == ours.encoder
    with pytest.raises(InputError, match="config.preset: expected one of interestyle, restyle_psp"):
        read_config(path, overrides=["--config.preset=restile"])
