"""A domain of your own, from pictures alone: its generator, then an encoder of it.

    interestyle data --images=pictures --masks=none --out=data/mine --size=256
    interestyle train --config=configs/own_domain.py:generator --workdir=runs/generator
    interestyle train --config=configs/own_domain.py:restyle_psp --workdir=runs/encoder

docs/own_domain.md has the whole path, up to edits. `:generator` is StyleGAN2's training at 256
pixels with the numbers that StyleGAN2-ADA calls paper256 (batch 64, R1 1, rate 0.0025), without
ADA's augmentation; the number of steps is a guess. `:interestyle` (which needs interest masks),
`:restyle_psp`, `:restyle_e4e`, `:psp` and `:e4e` train an encoder of it by the official losses
without an embedder: identity is for faces. Nothing here has been run at this size.

`:generator,smoke` and `:restyle_psp,smoke` are a few tiny steps, at 64 pixels.
"""

from interestyle_jax.config.presets import ENCODER_PRESETS, encoder_config, generator_config
from interestyle_jax.config.smoke import choice_and_size, shrink_encoder

GENERATOR = "generator"
# IDInvert needs VGG16 and the generator's discriminator: configs/idinvert_avatars.py shows how.
ENCODERS = tuple(preset for preset in ENCODER_PRESETS if preset != "idinvert")
DATA, WEIGHTS = "data/mine", "runs/generator/weights"


def get_config(words: str = GENERATOR):
    """`words`: "generator" or an encoder's preset, and "smoke", joined by a comma."""
    what, size = choice_and_size(words, (GENERATOR, *ENCODERS), GENERATOR, "configs/own_domain.py")
    config = _generator() if what == GENERATOR else _encoder(what)
    config.data.dir = DATA
    if size == "smoke" and what == GENERATOR:
        config.batch_size = 8
        config.num_steps = config.checkpoint_every = config.image_every = 2
        config.log_every = 1
        config.validation_samples = 8
        config.generator.resolution = 64
        config.generator.mapping_depth = 2
        config.generator.channel_max = config.discriminator.channel_max = 8
        # Compiles for a minute on a CPU.
        config.gan.path_length_weight = 0.0
    elif size == "smoke":
        shrink_encoder(config)
    return config


def _generator():
    config = generator_config()
    config.generator.resolution = 256
    config.generator.channel_base = config.discriminator.channel_base = 16384
    config.gan.field = "image"
    config.gan.r1_gamma = 1.0
    config.gan.ema_half_life = 20_000.0
    config.optimizer.learning_rate = 0.0025
    config.batch_size = 64
    return config


def _encoder(preset: str):
    config = encoder_config(preset)
    config.encoder.input_size = 256
    config.weights.generator = WEIGHTS
    config.loss.id = 0.0
    return config
