"""IDInvert's domain-guided encoder in the avatar world, an adaptation to StyleGAN2.

    interestyle data avatars --out=data/avatars
    interestyle train --config=configs/idinvert_avatars.py --workdir=runs/idinvert \
        --config.data.dir=data/avatars

As configs/demo.py, with preset `idinvert` (`interestyle_jax/training/in_domain_task.py` says where
it differs from the paper's). No VGG16 ships, so LPIPS on AlexNet stands for the features of conv4_3
(`in_domain.perceptual`), with the demo's weight; and no discriminator of the avatars' generator
ships, so it starts anew. The published encoder is trained on real images alone, here obstructed
ones, and does not know an interest region.

`:smoke` is a few tiny steps.
"""

from pathlib import Path

from interestyle_jax.config.files import load_config
from interestyle_jax.config.presets import set_preset


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in ("full", "smoke"):
        raise ValueError(f"configs/idinvert_avatars.py: expected full or smoke, got {size!r}")
    config = load_config(f"{Path(__file__).with_name('demo.py')}:{size}")
    set_preset(config, "idinvert")
    # It has one pass in every step.
    config.single_pass_until = 0.0
    config.in_domain.perceptual = "lpips"
    # As the generator's own training has them (configs/avatar_generator.py).
    config.in_domain.discriminator = {"channel_base": 1024, "channel_max": 128}
    config.in_domain.r1_gamma = 0.2
    if size == "smoke":
        config.in_domain.discriminator = {"channel_base": 256, "channel_max": 8}
    return config
