"""The smallest form of a config: a few steps in seconds on a CPU, to see that everything fits."""

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
      config: from `training.presets.encoder_config`.
    """
    kept = {"type": config.encoder.type, "input_channels": config.encoder.input_channels}
    config.encoder = kept | _TINY_ENCODER
    config.data.dir = "data/avatars"
    config.weights.generator = "avatar_generator"
    config.weights.id = config.weights.trunk = ""
    config.loss.id = 0.0
    config.compute_dtype = "float32"
    config.progressive = {"start": 1, "every": 1}
    config.method.num_iterations = min(2, config.method.num_iterations)
    config.batch_size = 8
    config.num_steps = 2
    config.checkpoint_every = 2
    config.picture_every = 2
    config.log_every = 1
    config.validation_samples = 8
    return config
