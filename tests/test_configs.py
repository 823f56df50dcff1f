"""Every config trains a step in its smoke form; sizes and presets are checked."""

import ast
import importlib.util
import json
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import build_parser, main
from interestyle_jax.config.presets import ENCODER_PRESETS, encoder_config
from interestyle_jax.config.table_2 import ROWS
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.training.train_loop import train
from interestyle_jax.training.trainer import make_task

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BASELINES = [preset for preset in ENCODER_PRESETS if preset != "interestyle"]
# File -> arguments that are trained; what is slow has a fast twin in the tests below.
SMOKE = {
    "avatar_attributes.py": ["smoke"],
    "avatar_clip.py": ["smoke"],
    "avatar_generator.py": ["smoke", "adversarial,smoke"],
    "avatar_interestyle.py": ["smoke"],
    "demo.py": ["smoke"],
    "idinvert_avatars.py": ["smoke"],
    "styleclip_mapper.py": ["smoke"],
    "ablation_avatars.py": ["restyle,smoke", "smoke"],
    "table_1_avatars.py": ["e4e,smoke", "idinvert,smoke"],
    # Its generator and "interestyle" are trained by test_own_domain.py.
    "own_domain.py": ["restyle_psp,smoke"],
    "interestyle_ffhq.py": ["smoke"],
    "interestyle_afhq_wild.py": ["smoke"],
    "ablation_ffhq.py": ["ind,smoke"],
    "baseline_ffhq.py": [
        f"{preset},smoke" for preset in ENCODER_PRESETS if preset != "interestyle"
    ],
}
FAST = {("avatar_generator.py", "smoke"), ("demo.py", "smoke")}
TRAINED = [
    pytest.param(name, argument, marks=() if (name, argument) in FAST else pytest.mark.slow)
    for name, arguments in SMOKE.items()
    for argument in arguments
]


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    """A few avatars of each size that a smoke config wants."""
    folder = tmp_path_factory.mktemp("avatars")
    for size in (16, 64):
        write_avatars(folder / str(size), sizes={"train": 8, "validation": 8}, size=size, workers=1)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of the avatars' words, as `avatar_clip.py` trains it, at its start."""
    task = make_task(load("avatar_clip.py", "smoke"))
    directory = tmp_path_factory.mktemp("clip") / "weights"
    task.export(jax.jit(task.init)(jax.random.key(0), {}), directory, extra={})
    return directory


def load(name, argument):
    spec = importlib.util.spec_from_file_location(Path(name).stem, CONFIGS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def test_no_config_is_left_out():
    assert {p.name for p in CONFIGS.glob("*.py")} == set(SMOKE)


@pytest.mark.parametrize(("name", "argument"), TRAINED)
def test_smoke_config_trains(name, argument, avatars, tmp_path, request):
    config = load(name, argument)
    if config.task == "mapper":
        config.weights.clip = str(request.getfixturevalue("clip"))
        config.batch_size = 8
    config.num_steps = 1
    config.data.dir = str(avatars / ("16" if name == "avatar_generator.py" else "64"))
    report = train(config, tmp_path / "run", command=["test"])
    assert report["status"] == "completed"
    assert report["last_step"] == 1
    assert (tmp_path / "run" / "weights" / "metadata.json").is_file()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["psp", "restyle_e4e"])
def test_whole_image_presets_train_without_masks(preset, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    command = ["data", f"--images={folder}", "--masks=none", f"--out={tmp_path / 'set'}"]
    assert main([*command, "--size=64", "--validation=8", "--test=0", "--workers=0"]) == 0
    config = load("baseline_ffhq.py", f"{preset},smoke")
    config.num_steps = 1
    config.data.dir = str(tmp_path / "set")
    assert train(config, tmp_path / "run", command=["test"])["status"] == "completed"
    config = load("interestyle_ffhq.py", "smoke")
    config.data.dir = str(tmp_path / "set")
    with pytest.raises(InputError, match="has no field 'interest_mask'"):
        train(config, tmp_path / "other", command=["test"])


# Parameters of the official encoders: IR-SE50 or ResNet34 below heads for 18 or 16 rows.
@pytest.mark.parametrize(
    ("name", "rows", "parameters"),
    [("interestyle_ffhq.py", 18, 205_585_792), ("interestyle_afhq_wild.py", 16, 176_524_352)],
)
def test_full_config_has_the_official_encoder(name, rows, parameters):
    config = load(name, "full")
    fields = {"num_styles": rows} | config.encoder.to_dict()
    shapes = registry.variable_shapes(fields)["params"]
    assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters
    # The official batch; one on every device of a node of eight.
    assert config.batch_size == 8
    for network in ("generator", "id", "trunk"):
        assert config.weights[network].startswith("weights/")
    smoke = load(name, "smoke")
    assert smoke.encoder.type == config.encoder.type
    assert smoke.method.filter_radii == config.method.filter_radii
    small = registry.variable_shapes({"num_styles": 10} | smoke.encoder.to_dict())["params"]
    assert sum(x.size for x in jax.tree.leaves(small)) < parameters / 100
    # Nothing of the user's is read.
    assert (smoke.weights.generator, smoke.weights.id) == ("avatar_generator", "")


def test_animals_differ_from_faces_as_known():
    faces, animals = load("interestyle_ffhq.py", "full"), load("interestyle_afhq_wild.py", "full")
    assert (faces.loss.id, animals.loss.id) == (0.1, 0.5)
    assert (faces.weights.id, animals.weights.id) == ("weights/arcface", "weights/moco")
    assert (faces.method.filter_reference, animals.method.filter_reference) == (1024, 512)
    assert faces.optimizer == animals.optimizer
    assert faces.method.disentangle_weight == animals.method.disentangle_weight == 0.05


@pytest.mark.parametrize("row", ROWS)
def test_rows_on_faces_differ_by_their_method_alone(row):
    config, whole = load("ablation_ffhq.py", row), load("interestyle_ffhq.py", "full")
    assert config.num_steps == whole.num_steps and config.weights == whole.weights
    assert (config.method == whole.method) == (row == "unf")
    other = load("ablation_avatars.py", row)
    for field in ("interest_loss", "gradient", "disentangle_weight", "filter_radii"):
        assert config.method[field] == other.method[field]


@pytest.mark.parametrize("preset", BASELINES)
def test_baselines_differ_by_their_preset_alone(preset):
    config, whole = load("baseline_ffhq.py", preset), load("interestyle_ffhq.py", "full")
    assert config.preset == preset
    assert config.num_steps == whole.num_steps and config.weights == whole.weights
    assert not config.method.interest_loss and config.method.disentangle_weight == 0
    assert load("baseline_ffhq.py", f"{preset},smoke").encoder.type == config.encoder.type


@pytest.mark.parametrize("name", SMOKE)
def test_unknown_size_is_refused(name):
    with pytest.raises(ValueError, match="expected .*smoke.*, got 'huge'"):
        load(name, "huge")


@pytest.mark.parametrize("name", SMOKE)
def test_commands_of_the_docstring_are_those_of_the_command_line(name):
    text = ast.get_docstring(ast.parse((CONFIGS / name).read_text()))
    assert ":smoke" in text or ",smoke" in text
    lines = text.replace("\\\n", " ").splitlines()
    commands = [shlex.split(x, comments=True) for x in lines if x.startswith("    ")]
    commands = [c for c in commands if c and c[0] in ("interestyle", "bash", "python")]
    trains = 0
    for command in commands:
        named = [w.removeprefix("--config=").partition(":")[0] for w in command]
        for path in [w for w in named if w.startswith(("configs/", "launch/"))]:
            assert (CONFIGS.parent / path).is_file(), path
        trains += any(w.startswith(("launch/", "experiments.")) or w == "train" for w in command)
        if command[0] == "interestyle":
            args, rest = build_parser().parse_known_args(command[1:])
            assert args.command in ("convert", "train", "data", "masks", "evaluate", "edit")
            assert all(word.startswith("--config.") for word in rest), rest
    assert trains


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
