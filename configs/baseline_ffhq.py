"""A baseline of the paper's Table 1 on faces, trained as configs/interestyle_ffhq.py is.

    bash launch/gpu_node.sh --config=configs/baseline_ffhq.py:restyle_psp --workdir=runs/restyle_psp

Data, weights, hardware and the way to measure are those of configs/interestyle_ffhq.py; the method
and the encoder are the preset's (`interestyle_jax/config/presets.py`). The paper measured the
encoders that their authors released (interest / face), on CelebA-HQ. The work of a step of 8 is
counted by XLA and not measured; the state (parameters and optimizer) is a device's.

    preset        L2              LPIPS           ID     TFLOP a step   state
    psp           0.018 / 0.006   0.095 / 0.046   0.56    6.1           4.0 GiB
    e4e           0.023 / 0.007   0.111 / 0.051   0.47    7.3           4.0 GiB
    restyle_psp   0.015 / 0.004   0.088 / 0.040   0.65   22.1           3.1 GiB
    restyle_e4e   0.021 / 0.007   0.109 / 0.054   0.51   22.6           3.1 GiB

`idinvert` is IDInvert's domain-guided encoder for StyleGAN2, an adaptation: the paper's row
is of StyleGAN1. It needs VGG16 (`weights.vgg`).

Losses, batch and optimizer are the official ones. So are, for the two with e4e's losses, the
weights of the adversarial term (0.1) and of the changes' norm (0.0002), and the stages: rows get
changes of their own from step 20,000 on, one every 2,000 steps
(`interestyle_jax/training/adversarial_encoder_task.py` says where it differs). The best checkpoint
is picked by the loss on the interest region, for every preset; the official trainers take the whole
image's.

`:restyle_psp,smoke` is two tiny steps in the avatar world.
"""

from pathlib import Path

from interestyle_jax.config.files import load_config
from interestyle_jax.config.presets import ENCODER_PRESETS, set_preset
from interestyle_jax.config.smoke import choice_and_size, shrink_encoder

BASELINES = tuple(preset for preset in ENCODER_PRESETS if preset != "interestyle")


def get_config(words: str = "restyle_psp"):
    """`words`: a preset, and "smoke" for the smallest size, joined by a comma."""
    preset, size = choice_and_size(words, BASELINES, "restyle_psp", "configs/baseline_ffhq.py")
    config = set_preset(load_config(str(Path(__file__).with_name("interestyle_ffhq.py"))), preset)
    return shrink_encoder(config) if size == "smoke" else config
