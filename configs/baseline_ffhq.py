"""A baseline of the paper's Table 1 on faces, trained as configs/interestyle_ffhq.py is.

    bash launch/gpu_node.sh --config=configs/baseline_ffhq.py:restyle_psp --workdir=runs/restyle_psp

Data, weights, hardware and the way to measure are those of configs/interestyle_ffhq.py; the method
is the preset's (`interestyle_jax/training/presets.py`). The paper measured the encoders that their
authors released (interest / face), on CelebA-HQ:

    preset        L2              LPIPS           ID     TFLOP a step of 8, counted, not measured
    restyle_psp   0.015 / 0.004   0.088 / 0.040   0.65   22.1

`:restyle_psp,smoke` is two tiny steps in the avatar world.
"""

from pathlib import Path

from interestyle_jax.config_file import load_config
from interestyle_jax.training.presets import ENCODER_PRESETS, set_preset
from interestyle_jax.training.smoke_config import shrink_encoder

BASELINES = tuple(preset for preset in ENCODER_PRESETS if preset != "interestyle")


def get_config(words: str = "restyle_psp"):
    """`words`: a preset, and "smoke" for the smallest size, joined by a comma."""
    preset, size = "restyle_psp", "full"
    for word in words.split(","):
        if word in BASELINES:
            preset = word
        elif word == "smoke":
            size = word
        else:
            raise ValueError(
                f"configs/baseline_ffhq.py: expected {', '.join(BASELINES)} or smoke, got {word!r}"
            )
    config = set_preset(load_config(str(Path(__file__).with_name("interestyle_ffhq.py"))), preset)
    return shrink_encoder(config) if size == "smoke" else config
