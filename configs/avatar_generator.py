"""The small StyleGAN2 of the avatar world, trained on clean avatars at 64x64.

    interestyle data avatars --out=data/avatars_clean --clean-only --train=30000
    interestyle train --config=configs/avatar_generator.py --workdir=runs/avatar_generator \
        --config.data.dir=data/avatars_clean

It learns to draw what the avatars' renderer draws (`training.distillation_task`), and is what the
shipped weights come from: docs/results/README.md has the time and the figures. `:adversarial` is
StyleGAN2's own training instead, as for images of which nothing is known. `:smoke`, or
`:adversarial,smoke`, runs a few tiny steps.
"""

from interestyle_jax.config.presets import distillation_config, generator_config
from interestyle_jax.config.smoke import choice_and_size

TRAININGS = ("distilled", "adversarial")


def get_config(words: str = "distilled"):
    """`words`: "distilled" (the shipped weights) or "adversarial", and "smoke", by commas."""
    training, size = choice_and_size(words, TRAININGS, "distilled", "configs/avatar_generator.py")
    config = distillation_config() if training == "distilled" else generator_config()
    config.batch_size = 16
    config.num_steps = 6_000
    config.checkpoint_every = 500
    config.image_every = 250
    config.validation_samples = 64
    config.licence = "CC BY 4.0 (trained on DiceBear toon-head images, see THIRD_PARTY.md)"
    config.storage_dtype = "float16"
    if training == "adversarial":
        config.generator.resolution = 64
        config.generator.mapping_depth = 4
        config.generator.channel_base = 1024
        config.generator.channel_max = 128
        config.discriminator.channel_base = 1024
        config.discriminator.channel_max = 128
        config.gan.r1_gamma = 0.2
        config.gan.path_length_weight = 0.0
        config.gan.style_mixing = 0.5
        config.gan.ema_half_life = 5_000.0
        config.optimizer.learning_rate = 0.0025
    if size == "smoke":
        config.batch_size = 8
        config.num_steps = 2
        config.checkpoint_every = 2
        config.log_every = 1
        config.validation_samples = 8
        config.generator.resolution = 16
        config.generator.channel_max = 8
        if training == "adversarial":
            config.discriminator.channel_max = 8
    return config
