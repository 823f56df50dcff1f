"""A small CLIP of the avatars: texts such as "a face with blond hair and a smile", at 64 pixels.

    interestyle data avatars --out=data/avatars_clean --clean-only --train=30000
    interestyle train --config=configs/avatar_clip.py --workdir=runs/avatar_clip \
        --config.data.dir=data/avatars_clean

Captions are made from what the avatars were drawn with (`data.avatars.captions`); it knows these
words and no others. `:smoke` runs a few tiny steps.
"""

from interestyle_jax.config.presets import clip_config

SIZES = ("full", "smoke")


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in SIZES:
        raise ValueError(f"configs/avatar_clip.py: expected full or smoke, got {size!r}")
    config = clip_config()
    config.batch_size = 512
    config.num_steps = 10_000
    config.checkpoint_every = 1000
    config.image_every = 10_000
    config.validation_samples = 512
    config.licence = "CC BY 4.0 (trained on DiceBear toon-head images, see THIRD_PARTY.md)"
    config.storage_dtype = "float16"
    if size == "smoke":
        config.batch_size = 8
        config.num_steps = 2
        config.checkpoint_every = 2
        config.log_every = 1
        config.validation_samples = 8
        config.clip.update(
            {"vision_layers": 1, "vision_width": 16, "vision_mlp": 16, "patch_size": 16}
        )
        config.clip.update({"text_layers": 1, "text_width": 16, "text_mlp": 16, "embed_dim": 8})
    return config
