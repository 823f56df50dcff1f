"""What an edit by text is made from: two kinds of weights, and the direction that each gives."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from interestyle_jax.editing import text_directions
from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.styleclip import global_directions
from interestyle_jax.editing.styleclip.global_directions import ChannelEffects
from interestyle_jax.editing.text_directions import FeatureCovariances
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.weights import load_weights, resolve_weights

TextSource = ChannelEffects | FeatureCovariances


def load_text_source(name_or_dir: str | Path) -> TextSource:
    """Weights of `directions text` or `directions global`, or StyleCLIP's own, converted.

    Raises:
      InputError: no such weight directory, or one of something else.
    """
    weights = load_weights(resolve_weights(name_or_dir))
    if weights.metadata["family"] == text_directions.FAMILY:
        return text_directions.read_covariances(weights)
    return global_directions.read_channel_effects(weights)


def check_text_source(source: TextSource, model: Model) -> None:
    """Raises InputError where the sizes are of another generator than a model's."""
    if isinstance(source, FeatureCovariances):
        source.check(w_dim=model.latents_shape[1])
    else:
        source.check(model.style_layers)


def direction_from_text(
    source: TextSource,
    text: Float[np.ndarray, " E"],
    model: Model,
    *,
    name: str,
    beta: float | None = None,
    num_channels: int | None = None,
) -> Direction:
    """The direction of a model's latents for a text.

    Args:
      source: of `load_text_source`.
      text: [E], of `global_directions.text_direction`.
      model: with the generator.
      name: for labels.
      beta, num_channels: of channels' effects, see `global_directions.channel_changes`.

    Raises:
      InputError: of another generator or CLIP, or options that do not go with the source.
    """
    check_text_source(source, model)
    if isinstance(source, ChannelEffects):
        return global_directions.global_direction(
            source, text, model.style_layers, name=name, beta=beta, num_channels=num_channels
        )
    given = {"beta": beta, "num_channels": num_channels}
    wrong = [option for option, value in given.items() if value is not None]
    if wrong:
        raise InputError(
            f"{wrong[0]}: goes with channels of `directions global`, {source.directory} moves w"
        )
    return source.direction(text, name=name)
