"""The way back: a `.pt` in one move, in the layout of the family, or none."""

import resource
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.weights import load_weights, save_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.__main__ import main
from tools.convert_weights.source_file import read_source
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")


def save_direction(out: Path, shape: tuple[int, ...]) -> Path:
    """A weight directory of family interfacegan, in bfloat16."""
    array = np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    save_weights(
        out,
        {"direction": array},
        family="interfacegan",
        architectures={},
        licence="none",
        dtype="bfloat16",
    )
    return out


@pytest.fixture
def direction(tmp_path) -> Path:
    """A small one."""
    return save_direction(tmp_path / "direction", (1, 512))


def test_command_writes_a_file_that_pytorch_reads(direction, tmp_path, capsys):
    out = tmp_path / "new" / "smile.pt"
    assert main([str(direction), str(out), "--to=pytorch"]) == 0
    printed = capsys.readouterr().out
    assert "1 tensors, 512 numbers" in printed and read_source(out).sha256 in printed
    assert "stored as bfloat16, written as float32" in printed
    tensor = torch.load(out, weights_only=True)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor, load_weights(direction).variables["direction"])


def test_an_existing_file_needs_force(direction, tmp_path, capsys):
    out = tmp_path / "x.pt"
    out.write_text("mine")
    assert main([str(direction), str(out), "--to=pytorch"]) == 2
    assert "already exists, pass --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([str(direction), str(out), "--to=pytorch", "--force"]) == 0
    assert torch.load(out, weights_only=True).shape == (1, 512)
    with pytest.raises(InputError, match="is a directory, expected the name of the file"):
        to_pytorch(direction, tmp_path, force=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family=stylegan9"], "expected auto or one of"),
        (["--family=stylegan2"], "no generator in these weights"),
        (["--part=direction"], "--part: not with --to=pytorch"),
        (["--dtype=float16"], "--dtype: float16 with --to=pytorch"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(direction, tmp_path, capsys, arguments, message):
    assert main([str(direction), str(tmp_path / "x.pt"), "--to=pytorch", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["direction"]


# PyTorch meets the full disk where it writes, or Python where it closes the file.
@pytest.mark.parametrize("rows", [18, 1])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, rows):
    direction = save_direction(tmp_path / "direction", (1, rows, 512))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to write more than this, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(MachineError, match=r"x.pt: could not be written: File too large"):
            to_pytorch(direction, tmp_path / "x.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["direction"]


def test_a_family_of_several_files_needs_an_empty_folder(shared_dir, tmp_path):
    files = [shared_dir / "official" / f"{name}.npy" for name in ("pnet", "rnet", "onet")]
    convert(files, tmp_path / "mtcnn")
    folder = tmp_path / "official"
    report = to_pytorch(tmp_path / "mtcnn", folder)
    assert sorted(p.name for p in folder.iterdir()) == ["onet.npy", "pnet.npy", "rnet.npy"]
    for file in files:
        assert read_source(folder / file.name).sha256 in report
        written = np.load(folder / file.name, allow_pickle=True).item()
        original = np.load(file, allow_pickle=True).item()
        assert written.keys() == original.keys()
        for key, value in original.items():
            assert written[key].tobytes() == value.tobytes(), key
    with pytest.raises(InputError, match="is not empty, pass --force"):
        to_pytorch(tmp_path / "mtcnn", folder)
    to_pytorch(tmp_path / "mtcnn", folder, force=True)


def test_a_training_run_of_this_project_comes_back_in_the_official_layout(tiny_weights, tmp_path):
    to_pytorch(tiny_weights / "inverter", tmp_path / "run.pt")
    content = torch.load(tmp_path / "run.pt", weights_only=True)
    assert content.keys() >= {"state_dict", "opts", "latent_avg"}
    sections = {key.split(".")[0] for key in content["state_dict"]}
    assert sections == {"encoder", "decoder"}
    assert recognise([read_source(tmp_path / "run.pt")]) == "interestyle"
    # A generator's file holds the generator alone.
    to_pytorch(tiny_weights / "inverter", tmp_path / "g.pt", family="stylegan2")
    assert torch.load(tmp_path / "g.pt", weights_only=True).keys() == {"g_ema", "latent_avg"}


@pytest.mark.parametrize("equal_rows", [True, False])
def test_the_generator_of_an_inverters_file_becomes_stylegan2s_own(
    official_inverters, tmp_path, equal_rows
):
    content = official_inverters.make_checkpoint(official_inverters.kinds["psp"])
    if equal_rows:
        content["latent_avg"][:] = content["latent_avg"][0]
    official_inverters.save(content, tmp_path / "psp.pt")
    convert([tmp_path / "psp.pt"], tmp_path / "generator", part="generator")
    weights = load_weights(tmp_path / "generator")
    assert weights.metadata["family"] == "stylegan2"
    assert weights.variables.keys() == {"generator", "w_avg"}
    to_pytorch(tmp_path / "generator", tmp_path / "g.pt")
    written = torch.load(tmp_path / "g.pt", weights_only=True)
    # The official loader repeats a mean latent [D] over the rows.
    expected = content["latent_avg"][0] if equal_rows else content["latent_avg"]
    np.testing.assert_array_equal(written["latent_avg"], expected)
    decoder = {k: v for k, v in content["state_dict"].items() if k.startswith("decoder.")}
    assert {f"decoder.{k}" for k in written["g_ema"]} == decoder.keys()
    for key, value in written["g_ema"].items():
        np.testing.assert_array_equal(value, decoder[f"decoder.{key}"])


def test_an_encoder_alone_has_no_official_file(official_inverters, tmp_path):
    content = official_inverters.make_checkpoint(official_inverters.kinds["psp"])
    official_inverters.save(content, tmp_path / "psp.pt")
    convert([tmp_path / "psp.pt"], tmp_path / "encoder", part="encoder")
    assert load_weights(tmp_path / "encoder").variables.keys() == {"encoder"}
    with pytest.raises(InputError, match="no generator in these weights"):
        to_pytorch(tmp_path / "encoder", tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()
