"""A small network that reads avatars: parts, colours, position, and the face's and hair's region.

    interestyle data avatars --out=data/avatars
    interestyle train --config=configs/avatar_attributes.py --workdir=runs/avatar_attributes \
        --config.data.dir=data/avatars

It learns from drawn avatars and judges generated and edited ones (`evaluation.attributes`).
`:smoke` runs a few tiny steps.
"""

from interestyle_jax.config.presets import attribute_config

SIZES = ("full", "smoke")


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in SIZES:
        raise ValueError(f"configs/avatar_attributes.py: expected full or smoke, got {size!r}")
    config = attribute_config()
    config.batch_size = 64
    config.num_steps = 8000
    config.checkpoint_every = 1000
    config.image_every = 8000
    config.validation_samples = 256
    config.licence = "CC BY 4.0 (trained on DiceBear toon-head images, see THIRD_PARTY.md)"
    config.storage_dtype = "float16"
    if size == "smoke":
        config.batch_size = 8
        config.num_steps = 2
        config.checkpoint_every = 2
        config.log_every = 1
        config.validation_samples = 8
        config.widths = (8, 8, 8)
    return config
