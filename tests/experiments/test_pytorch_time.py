"""Timing against the official code, of which a small stand-in is the checkout."""

import json
import sys

import numpy as np
import pytest

from experiments import pytorch_time
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import load

PSP = """
import torch
from models.stylegan2.op import FusedLeakyReLU, fused_leaky_relu, upfirdn2d
from torchvision.models.resnet import resnet34

class pSp(torch.nn.Module):
    def __init__(self, opts):
        super().__init__()
        self.opts, self.n_styles = opts, 18
        self.act = FusedLeakyReLU(3)
        self.load_weights()

    def load_weights(self):
        raise RuntimeError("there are no files")
"""
UTILS = """
import time

def run_on_batch(inputs, net, opts, avg_image):
    assert inputs.shape == (2, 3, 256, 256) and avg_image.shape == (3, 256, 256)
    assert not net.training and net.latent_avg.shape == (18, 512) and opts.n_iters_per_batch == 2
    net.act(inputs)
    time.sleep(0.05)
    SECOND_LINE
"""


def checkout(folder, line=""):
    for name, text in (
        ("models/psp.py", PSP),
        ("utils/inference_utils.py", UTILS.replace("SECOND_LINE", line)),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    stylegan2 = folder / "models/stylegan2"
    stylegan2.mkdir()
    (stylegan2 / "__init__.py").touch()
    return folder


def test_both_are_timed_in_turns(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    timed = pytorch_time.time_both(
        checkout(tmp_path),
        load("avatar_interestyle"),
        resolution=256,
        batch=2,
        iterations=2,
        rounds=3,
    )
    assert all(len(timed[name]) == 3 for name in ("official", "ours", "ours_processor", "ratios"))
    assert min(timed["official"]) >= 0.05 and min(timed["ours"]) > 0
    expected = [a / b for a, b in zip(timed["official"], timed["ours"], strict=True)]
    assert timed["ratios"] == expected and timed["ratio"] == sorted(expected)[1]
    assert f"ratio {timed['ratio']:.2f} (" in pytorch_time.sentence(timed)
    json.dumps(timed)


def test_official_code_that_fails_is_reported(tmp_path, capfd):
    pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    sizes = {"resolution": 256, "batch": 2, "iterations": 2}
    with pytest.raises(InputError, match="no models/psp.py; expected a checkout"):
        pytorch_time.OfficialProcess(tmp_path, **sizes)
    folder = checkout(tmp_path, "raise RuntimeError('broken')")
    with (
        pytest.raises(InputError, match="ended; see the lines above"),
        pytorch_time.OfficialProcess(folder, **sizes) as process,
    ):
        process.seconds()
    assert "broken" in capfd.readouterr().err
    (folder / "models/psp.py").write_text("import nowhere")
    with pytest.raises(InputError, match="did not start; see the lines above"):
        pytorch_time.OfficialProcess(folder, **sizes)


def test_resolution_below_the_encoders_is_refused(tmp_path, capsys):
    assert (
        pytorch_time.main([f"--official={tmp_path}", f"--out={tmp_path}/o", "--resolution=64"]) == 2
    )
    assert "expected at least 256" in capsys.readouterr().err


@pytest.mark.parametrize(("up", "down", "pad"), [(1, 1, (2, 1)), (2, 1, (2, 1)), (1, 2, (1, 1))])
def test_upfirdn2d_is_its_definition(up, down, pad):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    from experiments.official_process import upfirdn2d

    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 3, 5, 6)), rng.standard_normal((4, 4))
    found = upfirdn2d(torch.from_numpy(x), torch.from_numpy(kernel), up, down, pad).numpy()
    spread = np.zeros((2, 3, 5 * up, 6 * up))
    spread[:, :, ::up, ::up] = x
    padded = np.pad(spread, ((0, 0), (0, 0), pad, pad))
    height, width = padded.shape[2] - 3, padded.shape[3] - 3
    expected = np.zeros((2, 3, height, width))
    for i in range(4):
        for j in range(4):
            # A convolution, so the kernel is turned around.
            expected += kernel[3 - i, 3 - j] * padded[:, :, i : i + height, j : j + width]
    np.testing.assert_allclose(found, expected[:, :, ::down, ::down], rtol=1e-10, atol=1e-12)
    assert "models.stylegan2.op" not in sys.modules
