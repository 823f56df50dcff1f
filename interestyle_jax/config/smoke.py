"""The smallest form of a config: a few steps in seconds on a CPU, to see that everything fits."""

from collections.abc import Collection

import ml_collections

# Fields of an encoder at 64 pixels: as many stages as the official ones, a few channels in each.
_TINY_ENCODER = {
    "input_size": 64,
    "units": (1, 1, 1, 1),
    "widths": (8, 8, 8, 8, 8),
    "head_width": 8,
}


def shrink_encoder(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Makes an encoder's config a run of two steps in the avatar world, in place.

    It needs no weights but those that ship with the package, and a small avatar set
    (`interestyle data avatars --out=data/avatars`, or another `config.data.dir`). The method, the
    loss, the encoder's type and the optimizer stay the config's own; the generator becomes the
    avatars', at 64 pixels, and the term of the loss that needs an embedder (identity, MoCo) is off.

    Args:
      config: from `config.presets.encoder_config`.
    """
    encoder = config.encoder
    config.encoder = {"type": encoder.type, "input_channels": encoder.input_channels}
    config.data.dir = "data/avatars"
    config.weights.generator = "avatar_generator"
    config.weights.id = config.weights.trunk = ""
    config.weights.vgg = config.weights.discriminator = ""
    config.in_domain.perceptual = "lpips"
    config.in_domain.discriminator = {"channel_base": 256, "channel_max": 8}
    config.loss.id = 0.0
    config.compute_dtype = "float32"
    config.progressive = {"start": 1, "every": 1}
    return shrink_run(config)


def shrink_run(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Makes a config of the avatar world two steps of a tiny encoder, in place."""
    config.encoder.update(_TINY_ENCODER)
    config.method.num_iterations = min(2, config.method.num_iterations)
    # Every form of the step is a compilation.
    config.single_pass_until = 0.0
    config.batch_size = 8
    config.num_steps = 2
    config.checkpoint_every = 2
    config.image_every = 2
    config.log_every = 1
    config.validation_samples = 8
    return config


def choice_and_size(
    words: str, choices: Collection[str], default: str, file: str
) -> tuple[str, str]:
    """Reads the argument of a config file with a choice: "restyle", "smoke", "restyle,smoke".

    Args:
      words: a choice and "smoke", either or both, joined by a comma.
      choices: the known ones.
      default: the choice where none is named.
      file: the config file's name, for the message.

    Returns:
      The choice, and "smoke" or "full".

    Raises:
      ValueError: another word.
    """
    choice, size = default, "full"
    for word in words.split(","):
        if word in choices:
            choice = word
        elif word == "smoke":
            size = word
        else:
            raise ValueError(f"{file}: expected {', '.join(choices)} or smoke, got {word!r}")
    return choice, size
