"""The `interestyle` command as a user types it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.inversion.resize import encoder_input
from interestyle_jax.jobs import inversions

RNG = np.random.default_rng(0)
CONFIG = """
from ml_collections import ConfigDict


def get_config(argument=""):
    return ConfigDict({"seed": 0, "num_steps": 10, "optimizer": {"learning_rate": 1e-4}})
"""


def save(path, *shape, dtype=np.uint8):
    values = RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    """A folder with colour, grayscale, transparent, 16-bit and large images."""
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "colour.png", 32, 32, 3)
    save(folder / "deep.png", 32, 32, dtype=np.uint16)
    save(folder / "gray.png", 40, 50)
    save(folder / "large photo.jpg", 90, 70, 3)
    save(folder / "transparent.png", 64, 64, 4)
    return folder


@pytest.fixture
def fails(capfd, tmp_path):
    """Runs a command line that must fail with one line on stderr and leave no output folder."""

    def run(*argv):
        status = main([str(a) for a in argv])
        err = capfd.readouterr().err
        assert status == 2, err
        lines = [line for line in err.splitlines() if line.startswith("interestyle: error: ")]
        assert len(lines) == 1 and err.strip().endswith(lines[0]), err
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
        return lines[0]

    return run


@pytest.fixture
def invert(tiny_weights, tmp_path):
    """The command line of `invert` up to the input, then the rest."""

    def argv(source, *rest, weights="inverter"):
        out = ["--out", str(tmp_path / "out")]
        weights = str(tiny_weights / weights)
        return ["invert", "--weights", weights, "--input", str(source), *out, "--steps=2", *rest]

    return argv


def shell(*argv, cwd):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "interestyle_jax", *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_help_names_the_commands_and_loads_no_jax(tmp_path):
    done = shell("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("train", "invert", "evaluate", "data", "masks"):
        assert f"\n    {command} " in done.stdout
    check = "import sys, interestyle_jax.cli as c; c.build_parser(); print('jax' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "False"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"interestyle {ij.__version__}\n"


def test_invert_from_the_shell(tmp_path, images, invert):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = shell(*invert("images", "--batch-size=2"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "inverted 5 images" in done.stdout
    names = sorted(p.stem for p in images.iterdir())
    found = {p.name for p in (tmp_path / "out").iterdir()}
    own = {"latents.npz", "grid.png", "report.json", "progress.jsonl", "mine.txt"}
    assert found == {f"{name}.png" for name in names} | own
    with np.load(tmp_path / "out" / "latents.npz", allow_pickle=False) as latents:
        assert latents["names"].tolist() == names
        assert latents["w_plus"].shape == (5, 2, 8, 16)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["status"] == "done"
    assert report["num_images"] == 5
    assert report["seconds_per_image"] > 0
    assert report["command"][:2] == ["interestyle", "invert"]


def test_invert_equals_the_python_interface(tmp_path, images, invert, tiny_weights):
    assert main(invert(images, "--batch-size=4")) == 0
    out = tmp_path / "out"
    with np.load(out / "latents.npz") as latents:
        names, w_plus = latents["names"].tolist(), latents["w_plus"]
    model = ij.load(tiny_weights / "inverter")
    image = np.asarray(Image.open(images / "colour.png"))
    inversion = model.invert(encoder_input(image, (32, 32))[None], num_steps=2)
    own = names.index("colour")
    np.testing.assert_allclose(w_plus[own], inversion.w_plus[:, 0], rtol=1e-4, atol=1e-5)
    shown = np.asarray(inversion.images[-1, 0]).clip(-1, 1) * 127.5 + 127.5
    saved = np.asarray(Image.open(out / "colour.png"), np.float32)
    assert saved.shape == (32, 32, 3)
    assert np.abs(saved - shown).max() < 0.51
    assert len({w_plus[i].tobytes() for i in range(5)}) == 5


def test_invert_one_image_from_another_folder(tmp_path, images, invert):
    assert main(invert(images / "large photo.jpg")) == 0
    found = {p.name for p in (tmp_path / "out").iterdir()}
    assert found == {"large photo.png", "latents.npz", "grid.png", "report.json", "progress.jsonl"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["seconds_per_image"] is None


def test_invert_shows_no_more_rows_than_fit(tmp_path, images, invert, monkeypatch):
    monkeypatch.setattr(inversions, "GRID_ROWS", 2)
    assert main(invert(images, "--batch-size=4")) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["grid_rows"] == 2
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert 2 * 128 < grid.height < 3 * 128


def test_invert_names_a_truncated_image_and_goes_on_without_it(tmp_path, images, invert, capfd):
    whole = (images / "colour.png").read_bytes()
    (images / "zz_cut.png").write_bytes(whole[: len(whole) // 2])
    assert main(invert(images, "--batch-size=8")) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert "1 of 6 images cannot be used, more than --max-skipped=0.01" in line
    assert "zz_cut.png: unreadable or cut off" in line
    out = tmp_path / "out"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert len(before) == 5 and not (out / "report.json").exists()
    assert main(invert(images, "--batch-size=8", "--max-skipped=0.2")) == 0
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    report = json.loads((out / "report.json").read_text())
    assert report["num_images"] == 5 and report["num_new"] == 0
    assert list(report["skipped"]) == [str(images / "zz_cut.png")]


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("none.png", None, "none.png: no such file"),
        ("text.png", b"no image", "text.png: is not an image"),
        ("empty.png", b"", "empty.png"),
        ("grid.png", "image", "grid.png"),
    ],
)
def test_invert_names_a_bad_file(tmp_path, invert, fails, source, content, message):
    if content == "image":
        save(tmp_path / source, 32, 32, 3)
    elif content is not None:
        (tmp_path / source).write_bytes(content)
    assert message in fails(*invert(tmp_path / source))


def test_invert_refuses_folders_it_cannot_serve(tmp_path, images, invert, fails):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in fails(*invert(empty))
    save(images / "colour.jpg", 32, 32, 3)
    assert "colour" in fails(*invert(images))
    (images / "colour.jpg").unlink()
    before = {p.name: p.read_bytes() for p in images.iterdir()}
    message = fails(*invert(images), "--out", images)
    assert "would overwrite its own input" in message
    assert {p.name: p.read_bytes() for p in images.iterdir()} == before
    assert "is no folder" in fails(*invert(images), "--out", images / "gray.png")


def test_invert_names_what_the_weights_lack(tmp_path, images, invert, fails):
    assert "no encoder in this weight directory" in fails(*invert(images, weights="generator"))
    assert "no generator in this weight directory" in fails(*invert(images, weights="encoder"))
    assert "no such weight directory" in fails(*invert(images, weights="none"))
    assert "metadata.json" in fails(*invert(images), "--weights", tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["inverted"], "inverted"),
        (["invert"], "--weights, --input, --out"),
        (["invert", "--weights=a", "--input=b", "--out=out", "--steps=0"], "--steps: '0'"),
        (
            ["invert", "--weights=a", "--input=b", "--out=out", "--step=3"],
            "unknown argument --step",
        ),
        (["evaluate", "--data=a", "--out=out"], "--weights"),
        (["evaluate", "--weights=a", "--data=a", "--out=out"], "a: no such weight directory"),
        (["data"], "required"),
        (["train", "--config=none.py", "--workdir=out"], "none.py: config file not found"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, monkeypatch, fails, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(*argv)


def test_train_says_which_fields_are_close(tmp_path, fails):
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    argv = ["train", f"--config={config}:smoke", "--workdir", tmp_path / "out"]
    assert "close: config.num_steps" in fails(*argv, "--config.num_step=3")
    assert "close: config.optimizer.learning_rate" in fails(*argv, "--config.learning_rate", "3")
    assert "unknown argument --fast; overrides are" in fails(*argv, "--fast")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [({"status": "preempted", "last_step": 3}, 0), (FloatingPointError("loss is nan"), 1)],
)
def test_train_that_does_not_end_well(tmp_path, monkeypatch, capsys, outcome, status):
    from interestyle_jax.training import train_loop

    def train(config, workdir, *, command):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(train_loop, "train", train)
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    assert main(["train", f"--config={config}", f"--workdir={tmp_path / 'w'}"]) == status
    printed = "".join(capsys.readouterr())
    assert ("loss is nan" if status == 1 else "preempted at step 3") in printed


def test_train_passes_config_and_command_line_on(tmp_path, monkeypatch, capsys):
    from interestyle_jax.training import train_loop

    calls = []

    def train(config, workdir, *, command):
        calls.append((config, workdir, command))
        return {"status": "completed", "last_step": 3}

    monkeypatch.setattr(train_loop, "train", train)
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    argv = [
        "train",
        f"--config={config}",
        "--workdir=w",
        "--config.num_steps=3",
        "--config.seed",
        "7",
    ]
    assert main(argv) == 0
    ((found, workdir, command),) = calls
    assert (found.num_steps, found.seed, str(workdir)) == (3, 7, "w")
    assert command == ["interestyle", *argv]
    assert "completed at step 3" in capsys.readouterr().out


def test_evaluate_prints_its_table(tmp_path, images, tiny_weights, capsys):
    argv = ["evaluate", f"--weights={tiny_weights / 'inverter'}", f"--data={images}"]
    argv += [f"--out={tmp_path / 'out'}", "--steps=2", "--batch-size=4", "--name=mine"]
    assert main([*argv, "--num-samples=4"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text() in printed
    assert "| mine |" in printed
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_images"] == 4
    assert metrics["encoders"]["mine"]["whole"]["lpips"] > 0


def test_data_makes_what_evaluate_reads(tmp_path, capsys):
    argv = ["data", "avatars", f"--out={tmp_path / 'set'}", "--size=32", "--train=2"]
    assert main([*argv, "--validation=1", "--test=1", "--workers=0"]) == 0
    assert (tmp_path / "set" / "dataset_info.json").is_file()
    assert "set" in capsys.readouterr().out
