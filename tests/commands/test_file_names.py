"""File names that are no plain words: digits that are none, not UTF-8, line breaks, "~"."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.commands.options import Parser, expand_home
from interestyle_jax.config.files import read_config
from interestyle_jax.data.images import read_image, save_image
from interestyle_jax.data.locate import locate_data_set

NAMES = ("①", "5²", "٣", os.fsdecode(b"caf\xe9"), "two\nlines", "tab\tand 'quote\"", "-")


@pytest.fixture
def images(shared_dir, tmp_path):
    """Portraits under every name of NAMES."""
    folder = tmp_path / "images"
    folder.mkdir()
    portrait = Image.open(shared_dir / "portraits" / "male_01.jpg").resize((200, 200))
    for name in NAMES:
        portrait.save(folder / f"{name}.png")
    return folder


def runs(capfd, *argv) -> str:
    """Runs a command line that must end with status 0 and no traceback; returns stderr."""
    assert main([str(a) for a in argv]) == 0, capfd.readouterr().err
    err = capfd.readouterr().err
    assert "Traceback" not in err
    return err


def test_align_and_masks_and_data_take_any_name(images, tmp_path, capfd):
    aligned, masks = tmp_path / "aligned", tmp_path / "masks"
    runs(capfd, "align", "--input", images, "--out", aligned, "--size=32")
    assert {p.stem for p in aligned.glob("*.png")} == set(NAMES)
    assert set(json.loads((aligned / "alignment.json").read_text())["images"]) == set(NAMES)
    runs(capfd, "masks", "--provider=selfie", "--images", aligned, "--out", masks)
    assert {p.stem for p in (masks / "interest").glob("*.png")} == set(NAMES)
    out = tmp_path / "set"
    counts = ("--validation=1", "--test=1")
    # A black mask is left out with its name in the reports.
    save_image(masks / "interest" / f"{NAMES[0]}.png", np.zeros((32, 32, 1), np.uint8))
    runs(
        capfd, "data", "--images", aligned, "--masks", masks, "--out", out, "--size=16",
        "--workers=0", "--max-skipped=0.2", *counts,
    )  # fmt: skip
    runs(capfd, "data", "--verify", out)
    argv = ["masks", "--provider=folder", f"--masks={masks / 'interest'}", f"--images={aligned}"]
    runs(capfd, *argv, "--out", tmp_path / "again")


def test_invert_and_evaluate_take_any_name(images, tiny_weights, tmp_path, capfd):
    weights = f"--weights={tiny_weights / 'inverter'}"
    out = tmp_path / "out"
    runs(capfd, "invert", weights, "--steps=1", "--input", images, "--out", out)
    assert {p.stem for p in out.glob("*.png")} == {*NAMES, "grid"}
    with np.load(out / "latents.npz") as latents:
        assert set(latents["names"].tolist()) == set(NAMES)
    name = f"{NAMES[3]}\n{NAMES[0]} $\\frac$ |"
    argv = ["evaluate", weights, f"--name={name}", f"--data={images}", "--steps=1"]
    runs(capfd, *argv, "--out", tmp_path / "e")
    (encoder,) = json.loads((tmp_path / "e" / "metrics.json").read_text())["encoders"]
    assert encoder == f"caf\\udce9 {NAMES[0]} $\\frac$ |"


def test_errors_and_notices_are_one_line_each(tmp_path, capfd):
    folder = tmp_path / "a\nb"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.png").write_bytes(b"no image")
    (folder / "line\nbreak.gif").write_bytes(b"")
    save_image(folder / "good.png", np.zeros((8, 8, 3), np.uint8))
    argv = ["masks", "--provider=selfie", f"--images={folder}", f"--out={tmp_path / 'out'}"]
    assert main(argv) == 2
    lines = [
        line for line in capfd.readouterr().err.splitlines() if line.strip() and "%|" not in line
    ]
    assert lines and all(line.startswith("interestyle: ") for line in lines)


def test_a_console_that_is_not_utf8_gets_replacements(tmp_path, shared_dir):
    folder = tmp_path / "bücher ①"
    folder.mkdir()
    image = read_image(shared_dir / "portraits" / "male_01.jpg")[::4, ::4]
    save_image(folder / f"{NAMES[3]}.png", image)
    environment = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    argv = ["align", f"--input={folder}", f"--out={folder / 'out'}", "--size=16", "--workers=1"]
    done = subprocess.run(
        [sys.executable, "-m", "interestyle_jax", *argv], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert rb"b\xfccher \u2460/out: aligned 1 images" in done.stdout
    assert b"Traceback" not in done.stderr


def test_home_is_expanded_wherever_a_path_may_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    home = str(tmp_path)
    given = [
        "align", "--input=~/photos", "--out", "~/out", "--masks-option=weights=~/w", "~",
        "--config.data.dir=~/set", "--config=~/c.py:smoke", "a~b", "--name=x~", "~no-such-user/x",
    ]  # fmt: skip
    assert expand_home(given) == [
        "align", f"--input={home}/photos", "--out", f"{home}/out",
        f"--masks-option=weights={home}/w", home, f"--config.data.dir={home}/set",
        f"--config={home}/c.py:smoke", "a~b", "--name=x~", "~no-such-user/x",
    ]  # fmt: skip
    parser = Parser()
    parser.add_argument("--out", type=Path)
    assert parser.parse_args(["--out=~/x"]).out == tmp_path / "x"
    (tmp_path / "photos").mkdir()
    assert locate_data_set("~/photos") == tmp_path / "photos"


def test_a_command_and_a_config_expand_home(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["data", "avatars", "--out=~/set", "--train=2", "--validation=1", "--test=1",
                 "--size=32", "--workers=0"]) == 0  # fmt: skip
    assert (tmp_path / "set" / "dataset_info.json").is_file()
    file = tmp_path / "c.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(argument=''):\n"
        "    return ConfigDict({'data': {'dir': '~/set', 'split': 'a~'}, 'weights': {'id': ''}})\n"
    )
    config = read_config(str(file), overrides=["--config.weights.id=~/arcface"])
    assert Path(config.data.dir) == tmp_path / "set" and config.data.split == "a~"
    assert Path(config.weights.id) == tmp_path / "arcface"


def test_every_parser_of_the_project_expands_home():
    root = Path(__file__).resolve().parents[2]
    files = [p for name in ("interestyle_jax", "experiments", "tools")
             for p in (root / name).rglob("*.py")]  # fmt: skip
    made = {p.name for p in files if "argparse.ArgumentParser(" in p.read_text(encoding="utf-8")}
    # Where the project's own parser is derived from it.
    assert made <= {"options.py"}
    assert [p for p in (root / "experiments").rglob("*.py") if "Parser(" in p.read_text()]
