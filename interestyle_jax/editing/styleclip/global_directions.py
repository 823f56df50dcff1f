"""A direction in S space for a text: StyleCLIP's global directions.

fs3 says what each channel of S does to CLIP's image feature. A text's direction in CLIP's space
is compared with each; channels that agree move by so many of their standard deviations. Source:
StyleCLIP section 6; `global/manipulate.py`, `MapTS.py` and `SingleChannel.py`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.clip import Clip
from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.style_space import counted_layers
from interestyle_jax.errors import InputError
from interestyle_jax.models.stylegan2 import StyleLayer
from interestyle_jax.weights import Weights, load_weights, resolve_weights

# Thresholds that are tried, the largest that keeps more than so many channels is taken.
BETAS = np.arange(0.1, 0.3, 0.01)
AT_LEAST = 20
ALPHA_RANGE = (-5.0, 5.0)


@dataclasses.dataclass(frozen=True)
class ChannelEffects:
    """What the channels of a generator's S space do to CLIP's image feature.

    Attributes:
      fs3: [M, E], unit rows, of the channels of all layers but ToRGB, in their order; layers
        behind the last row (the official file may end at 128 pixels) are never changed.
      s_std: standard deviations of S, [C] a layer, ToRGB among them.
      directory: where it was read from, for messages.
      generator: fingerprint of the generator, or None where nothing is known (official files).
      clip: digest of the CLIP's weights, likewise.
    """

    fs3: Float[np.ndarray, "M E"]
    s_std: tuple[Float[np.ndarray, " C"], ...]
    directory: Path = Path()
    generator: str | None = None
    clip: str | None = None

    default_range = ALPHA_RANGE

    def check(self, layers: Sequence[StyleLayer]) -> None:
        """Raises InputError where they are of another generator, whose `style_layers` these are."""
        channels = tuple(layer.channels for layer in layers)
        found = tuple(len(std) for std in self.s_std)
        if found != channels:
            raise InputError(
                f"{self.directory}: statistics of S for layers of {found} channels, this generator "
                f"has {channels}"
            )
        ends = np.cumsum([channels[i] for i in counted_layers(layers, with_rgb=False)])
        if len(self.fs3) not in ends:
            raise InputError(
                f"{self.directory}: fs3 has {len(self.fs3)} rows, expected one for each channel "
                f"but ToRGB's, {ends[-1]}, or those up to the end of a layer"
            )


def load_channel_effects(name_or_dir: str | Path) -> ChannelEffects:
    """Reads what the converter made of fs3.npy and S_mean_std.

    Raises:
      InputError: no such weight directory, or one of something else.
    """
    return read_channel_effects(load_weights(resolve_weights(name_or_dir)))


def read_channel_effects(weights: Weights) -> ChannelEffects:
    """As `load_channel_effects`, of weights in memory."""
    try:
        fs3, std = weights.variables["fs3"], weights.variables["s_std"]
    except KeyError as error:
        raise InputError(
            f"{weights.directory}: no {error.args[0]}, expected weights of styleclip_global"
        ) from error
    stds = tuple(std[f"layer_{i}"] for i in range(len(std)))
    made = weights.metadata["extra"].get("made_with", {})
    return ChannelEffects(fs3, stds, weights.directory, made.get("generator"), made.get("clip"))


def channel_effects(features: Float[np.ndarray, "M N 2 E"]) -> Float[np.ndarray, "M E"]:
    """fs3 [M, E] from CLIP's features [M, N, 2, E] of N images a channel, lowered and raised."""
    features = np.asarray(features, np.float64)
    change = _unit(_unit(features)[:, :, 1] - _unit(features)[:, :, 0])
    return _unit(change.mean(axis=1)).astype(np.float32)


def text_direction(
    clip: Clip, target: str, neutral: str, *, templates: Sequence[str] | None = None
) -> Float[np.ndarray, " E"]:
    """The unit direction [E] from a neutral text to a target, in CLIP's space.

    Args:
      clip: the one that fs3 was made with.
      target: what is asked for, "a smiling face".
      neutral: what is there, "a face".
      templates: sentences with {} for the texts, such as `clip.read_templates()`; None: none.

    Raises:
      InputError: as `Clip.described`, or two texts that CLIP does not tell apart.
    """
    both = [
        np.asarray(clip.described(t, templates=templates), np.float64) for t in (target, neutral)
    ]
    change = both[0] - both[1]
    if np.linalg.norm(change) < 1e-6:
        raise InputError(f"text: {target!r} and {neutral!r} are the same to CLIP")
    return _unit(change)


def relevance(
    fs3: Float[np.ndarray, "M E"], direction: Float[np.ndarray, " E"]
) -> Float[np.ndarray, " M"]:
    """How much each channel's effect [M, E] agrees with a unit direction [E]: cosines [M].

    Raises:
      InputError: they are of two CLIPs.
    """
    if fs3.shape[1:] != np.shape(direction):
        raise InputError(
            f"text: CLIP's features have {len(direction)} numbers, fs3 was made with "
            f"{fs3.shape[1]}; expected the same CLIP"
        )
    return np.asarray(fs3, np.float64) @ np.asarray(direction, np.float64)


def channels_by_beta(relevances: Float[np.ndarray, " M"]) -> list[int]:
    """How many channels each of `BETAS` keeps, of relevances [M]."""
    return [int(np.sum(np.abs(relevances) >= beta)) for beta in BETAS]


def default_beta(relevances: Float[np.ndarray, " M"], *, at_least: int = AT_LEAST) -> float:
    """The largest of `BETAS` that keeps more than `at_least` of [M] channels, else the smallest."""
    counts = np.array(channels_by_beta(relevances))
    kept = np.flatnonzero(counts > at_least)
    return float(BETAS[kept[-1]] if len(kept) else BETAS[0])


def channel_changes(
    relevances: Float[np.ndarray, " M"],
    s_std: Sequence[Float[np.ndarray, " C"]],
    layers: Sequence[StyleLayer],
    *,
    beta: float | None = None,
    num_channels: int | None = None,
) -> tuple[Float[np.ndarray, " C"], ...]:
    """The direction in S for an alpha of 1, [C] a layer; zeros where nothing passes.

    Args:
      relevances: [M], see `relevance`.
      s_std: [C] a layer.
      layers: `Generator.style_layers`.
      beta: channels whose relevance is smaller stay; None: `default_beta`.
      num_channels: keep so many of the most relevant instead.

    Raises:
      InputError: both, or numbers out of range.
    """
    if beta is not None and num_channels is not None:
        raise InputError("beta, num_channels: expected one of them, not both")
    if beta is not None and not 0 <= beta < 1:
        raise InputError(f"beta: {beta}, expected from 0 to below 1")
    if num_channels is not None and not 1 <= num_channels <= len(relevances):
        raise InputError(f"num_channels: {num_channels}, expected 1 to {len(relevances)}")
    size = np.abs(relevances)
    if num_channels is not None:
        kept = np.zeros(len(size), bool)
        kept[np.argsort(-size, kind="stable")[:num_channels]] = True
    else:
        kept = size >= (default_beta(relevances) if beta is None else beta)
    # The official code divides by 0 where nothing is kept.
    change = np.where(kept, relevances, 0) / (size.max() if kept.any() and size.max() else 1)
    counted, at, parts = counted_layers(layers, with_rgb=False), 0, []
    for i, (layer, std) in enumerate(zip(layers, s_std, strict=True)):
        part = np.zeros(layer.channels)
        if i in counted and at < len(change):
            part = change[at : at + layer.channels] * std
            at += layer.channels
        parts.append(part.astype(np.float32))
    return tuple(parts)


def global_direction(
    effects: ChannelEffects,
    direction: Float[np.ndarray, " E"],
    layers: Sequence[StyleLayer],
    *,
    name: str,
    beta: float | None = None,
    num_channels: int | None = None,
) -> Direction:
    """The direction in S space for a text; its strength is StyleCLIP's alpha.

    Args:
      effects: of this generator.
      direction: [E], of `text_direction`.
      layers: `Generator.style_layers`.
      name: for labels.
      beta: see `channel_changes`.
      num_channels: see `channel_changes`.

    Raises:
      InputError: effects of another generator or another CLIP, or as `channel_changes`.
    """
    effects.check(layers)
    found = relevance(effects.fs3, direction)
    changes = channel_changes(found, effects.s_std, layers, beta=beta, num_channels=num_channels)
    array = np.concatenate(changes)
    return Direction(
        name,
        "style",
        array,
        unit="raw",
        source="StyleCLIP's global direction",
        default_range=ALPHA_RANGE,
        generator=effects.generator,
        extra={"num_channels": int(np.count_nonzero(array))},
    )


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
