"""Edits of `interestyle edit` that a text asks for: directions in W, StyleCLIP's global directions
in S, and its mappers.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from interestyle_jax.editing.clip import load_clip, read_templates
from interestyle_jax.editing.direction_files import parse_direction
from interestyle_jax.editing.styleclip.global_directions import text_direction
from interestyle_jax.editing.styleclip.mapper import load_mapper
from interestyle_jax.editing.text_sources import direction_from_text, load_text_source
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.edits import PlannedEdit
from interestyle_jax.weights import digest, resolve_weights

# Weights that ship: a CLIP of the avatars, and how their generator's w varies with its features.
CLIP, CHANNELS = "avatar_clip", "avatar_texts"
NEUTRAL = "a face"


def text_edit(
    text: str,
    *,
    neutral: str = NEUTRAL,
    clip: str | Path = CLIP,
    channels: str | Path = CHANNELS,
    templates: str | Path | None = None,
    beta: float | None = None,
    num_channels: int | None = None,
    other_generator: bool = False,
) -> Callable[[Model], PlannedEdit]:
    """An edit for `edits.edit_files`, planned once the generator is known.

    Args:
      text: what is asked for.
      neutral: what is there without it.
      clip: weights of the CLIP that `channels` were measured with.
      channels: what the direction is made from, see `text_sources.load_text_source`.
      templates: a file of sentences with {} for the texts, "imagenet" for CLIP's own, or None.
      beta, num_channels: of channels' effects, see `global_directions.channel_changes`.
      other_generator: take channels that were measured with another generator.
    """
    options = {
        "neutral": neutral,
        "clip": clip,
        "channels": channels,
        "templates": templates,
        "beta": beta,
        "num_channels": num_channels,
        "other_generator": other_generator,
    }
    return functools.partial(_plan_text, text=text, **options)


def mapper_edit(given: str) -> Callable[[Model], PlannedEdit]:
    """As `text_edit`, of a mapper's weights, "NAME_OR_DIR[:STRENGTH]"."""
    return functools.partial(_plan_mapper, given=given)


def _plan_text(
    model, *, text, neutral, clip, channels, templates, beta, num_channels, other_generator
) -> PlannedEdit:
    source, reader = load_text_source(channels), load_clip(clip)
    found = {"CLIP": (source.clip, digest(reader.directory), "--clip")}
    if not other_generator:
        own = model.generator_fingerprint
        found["generator"] = (source.generator, own, "--channels, or --other-generator")
    for what, (made_with, own, option) in found.items():
        if made_with not in (None, own):
            raise InputError(
                f"{source.directory}: was measured with {what} {made_with}, this one is {own}; "
                f"expected another {option}"
            )
    sentences = None
    if templates is not None:
        sentences = read_templates() if str(templates) == "imagenet" else read_templates(templates)
    direction = direction_from_text(
        source,
        text_direction(reader, text, neutral, templates=sentences),
        model,
        name=text,
        beta=beta,
        num_channels=num_channels,
    )
    facts = {
        "name": text,
        "text": text,
        "neutral": neutral,
        "kind": direction.kind,
        "channels": direction.extra.get("num_channels"),
        "beta": beta,
        "norm": round(direction.norm, 6),
        "default_range": list(direction.default_range),
        "clip": digest(reader.directory),
        "sha256": hashlib.sha256(np.ascontiguousarray(direction.array).data).hexdigest()[:16],
    }
    return PlannedEdit(direction.edit(model.style_layers), None, facts)


def _plan_mapper(model: Model, *, given: str) -> PlannedEdit:
    name, strength = parse_direction(given)
    edit = load_mapper(name, model.style_layers, w_dim=model.latents_shape[1])
    facts = {
        "name": edit.name,
        "mapper": name,
        "weights": digest(resolve_weights(name)),
        "default_range": list(edit.default_range),
    }
    return PlannedEdit(edit, strength, facts)
