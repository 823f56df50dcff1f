"""`--verify`: every tensor against the source, every network run, and failures that it finds."""

import jax
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator
from tools.convert_weights import convert, torch_reference
from tools.convert_weights.__main__ import main
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.families.stylegan2 import restore_generator

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")


@pytest.fixture(scope="module")
def state():
    """The state dict of a tiny generator."""
    module = Generator(
        resolution=8, w_dim=6, z_dim=6, mapping_depth=1, channel_base=64, channel_max=8
    )
    shapes = registry.variable_shapes(registry.describe(module))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    return restore_generator(variables, registry.describe(module))


def save(path, state, dtype=torch.float32):
    tensors = {k: (torch.from_numpy(v).double() * (1 + 1e-8)).to(dtype) for k, v in state.items()}
    torch.save({"g_ema": tensors, "latent_avg": torch.ones(6), "d_optim": tensors}, path)
    return path


def test_command_compares_every_tensor_and_runs_every_network(state, tmp_path, capsys):
    source = save(tmp_path / "g.pt", state)
    assert main([str(source), str(tmp_path / "out"), "--verify"]) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("verify")]
    count = len(state) + 1
    assert lines[0] == (
        f"verify: {count} tensors are the source's, bit for bit; largest relative difference "
        "0.0e+00"
    )
    assert lines[1].startswith("verify: not compared: d_optim/")
    assert lines[2].startswith("verify: generator in PyTorch, on the source's tensors: largest")
    assert 0 < float(lines[2].split()[-1]) < 1e-5


@pytest.mark.parametrize(
    ("source_dtype", "dtype", "largest"),
    [
        (torch.float64, "float32", 1e-7),
        (torch.bfloat16, "float32", 0),
        (torch.float32, "bfloat16", 4e-3),
    ],
    ids=["double", "bfloat16", "to bfloat16"],
)
def test_casts_are_accounted_for(state, tmp_path, source_dtype, dtype, largest):
    source = save(tmp_path / "g.pt", state, source_dtype)
    report = convert([source], tmp_path / "out", dtype=dtype, check=True)
    kind = str(source_dtype).removeprefix("torch.")
    assert f"note: generator is stored as {dtype}, the source is {kind}" in report
    (line,) = [x for x in report.splitlines() if "bit for bit" in x]
    assert (f"after rounding to {dtype}" in line) == (dtype != "float32")
    assert largest / 10 <= float(line.split()[-1]) <= largest


def test_a_tensor_that_differs_is_named(state, tmp_path, monkeypatch):
    restore = type(FAMILIES["stylegan2"]).restore

    def wrong(self, weights):
        content = restore(self, weights)
        content["g_ema"]["conv1.conv.weight"] = content["g_ema"]["conv1.conv.weight"] * 1.0001
        return content

    monkeypatch.setattr(type(FAMILIES["stylegan2"]), "restore", wrong)
    with pytest.raises(InputError, match=r"verify: g_ema/conv1/conv/weight is not what the source"):
        convert([save(tmp_path / "g.pt", state)], tmp_path / "out", check=True)


def test_values_that_are_not_finite_are_warned_of_and_fail_the_check(state, tmp_path):
    bias = state["conv1.activate.bias"].copy()
    bias[:2] = np.nan
    source = save(tmp_path / "g.pt", state | {"conv1.activate.bias": bias})
    report = convert([source], tmp_path / "out")
    warning = "warning: generator/params/conv_4/bias holds 2 values that are not finite (NaN)"
    assert warning in report
    with pytest.raises(InputError, match="verify: the output of generator is not finite"):
        convert([source], tmp_path / "again", check=True)


def test_verify_goes_with_whole_conversions_alone(state, tmp_path, capsys):
    source = save(tmp_path / "g.pt", state)
    for arguments in (["--part=w_avg"], ["--to=pytorch"]):
        assert main([str(source), str(tmp_path / "out"), "--verify", *arguments]) == 2
        assert "--verify: not with --" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["psp", "e4e", "restyle_psp", "restyle_e4e_resnet"],  # every trunk and head
)
def test_encoders_are_evaluated_in_pytorch(name, official_inverters, tmp_path):
    kind = official_inverters.kinds[name]
    official_inverters.save(official_inverters.make_checkpoint(kind), tmp_path / "x.pt")
    report = convert([tmp_path / "x.pt"], tmp_path / "out", check=True)
    lines = [x for x in report.splitlines() if "in PyTorch" in x]
    assert [x.split()[1] for x in lines] == ["encoder", "generator"]
    assert all(float(x.split()[-1]) < 1e-5 for x in lines)


def test_another_result_of_pytorch_is_an_error(state, tmp_path, monkeypatch):
    synthesis = torch_reference.synthesis
    rolled = lambda s, w_plus: synthesis(s, w_plus.roll(1, dims=1))  # noqa: E731
    monkeypatch.setattr(torch_reference, "synthesis", rolled)
    with pytest.raises(InputError, match="generator differs from PyTorch's evaluation"):
        convert([save(tmp_path / "g.pt", state)], tmp_path / "out", check=True)
