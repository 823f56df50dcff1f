"""The commands of docs/own_domain.md, run as they stand there, from pictures to edits."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import own_domain
from interestyle_jax.cli import main
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.fid import FewImagesWarning
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.training.trainer import make_task
from interestyle_jax.weights import load_weights

PAGE = (Path(__file__).parents[1] / "docs" / "own_domain.md").read_text()
TRIED = PAGE[PAGE.index("## Tried with drawings") :]
PICTURES = 64


def blocks(text):
    """Blocks of code: (language, lines)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block):
    """Arguments of each `interestyle` command."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    return [shlex.split(line.removeprefix("interestyle ")) for line in lines]


@pytest.mark.slow
def test_the_documented_commands_make_edits_of_drawings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (python, drawing), (_, block) = blocks(TRIED)
    assert python == "python"
    exec(compile(drawing, "own_domain.md", "exec"), {})
    assert len(list(Path("pictures").iterdir())) == len(list(Path("masks").iterdir())) == PICTURES
    told = commands(block)
    assert [words[0] for words in told] == [
        "data", "train", "train", "invert", "directions", "edit", "evaluate",
    ]  # fmt: skip
    for words in told[:-1]:
        assert main(words) == 0, words
    with pytest.warns(FewImagesWarning, match="8 images for a covariance of 256"):
        assert main(told[-1]) == 0
    metadata = load_weights(Path("runs/encoder/weights")).metadata
    assert metadata["architectures"]["generator"]["resolution"] == 32
    assert LatentFile(Path("inverted")).shape == (PICTURES, 5, 8, 512)
    edited = [np.asarray(Image.open(f"edited/0_{label}.png")) for label in ("-3", "0", "+3")]
    assert edited[0].shape == (32, 32, 3) and (edited[0] != edited[2]).any()
    (found,) = json.loads(Path("report/metrics.json").read_text())["encoders"].values()
    assert found["interest"]["lpips"] > 0 and found["edit_fid"]["mode"] == "lpips"
    assert 0 <= found["nscd"] <= 2


def test_both_ways_of_the_page_have_every_stage():
    stages = ["data", "train", "invert", "directions", "edit", "evaluate"]
    for _, block in blocks(PAGE):
        if block.startswith("interestyle"):
            told = [words[0] for words in commands(block) if words[0] != "convert"]
            assert list(dict.fromkeys(told)) == stages


def test_the_config_has_a_generator_of_photographs_and_encoders_without_masks():
    config = own_domain.get_config("generator")
    assert config.task == "generator" and make_task(config).batch_fields == ("image",)
    assert make_task(config).g.resolution == 256
    assert own_domain.get_config("generator,smoke").data.dir == own_domain.DATA
    assert "idinvert" not in own_domain.ENCODERS
    for preset in own_domain.ENCODERS:
        config = own_domain.get_config(preset)
        assert config.preset == preset and config.weights.generator == own_domain.WEIGHTS
        assert not config.weights.id and config.loss.id == 0
    with pytest.raises(ValueError, match="expected generator, interestyle, .* got 'idinvert'"):
        own_domain.get_config("idinvert")
    config.data.dir = ""
    config.weights.generator = "nowhere"
    with pytest.raises(InputError, match="nowhere"):
        make_task(config)
