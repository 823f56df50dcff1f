"""Weights of the right shapes for a plan, where the real ones are not on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.weights import resolve_weights, save_weights

# The official networks: StyleGAN2 config F, ArcFace's IR-SE50, VGG16's LPIPS.
GENERATOR = {"type": "Generator"}
EMBEDDER = {"type": "FaceEmbedder"}
VGG = {"type": "LPIPS", "network": "vgg"}
# Of `config.weights`: which part stands in, with which architecture. What a training merely starts
# from changes no shape.
ROLES: dict[str, tuple[str, dict[str, Any]]] = {
    "generator": ("generator", GENERATOR),
    "id": ("embedder", EMBEDDER),
    "vgg": ("lpips", VGG),
}
STARTS = ("trunk", "encoder", "discriminator")


def use_stand_ins(
    config: ml_collections.ConfigDict, folder: Path, *, generator: Mapping[str, Any]
) -> dict[str, str]:
    """Makes a config, in place, read weights of zeros where it names some that are not here.

    Args:
      config: of a training.
      folder: where they are written.
      generator: fields of the generator that differ from the official 1024 one's.

    Returns:
      {field of `config.weights`: what stands in, in words}.
    """
    if "weights" not in config:
        return {}
    told = {}
    with config.unlocked():
        for field, name in config.weights.items():
            if field in STARTS:
                config.weights[field] = ""
            elif field in ROLES and name and not _is_here(name):
                part, architecture = ROLES[field]
                if field == "generator":
                    architecture = {**architecture, **generator}
                config.weights[field] = str(_write(folder / field, part, architecture))
                told[field] = f"{name} is not here, a {architecture['type']} of zeros stands in"
    return told


def _is_here(name: str) -> bool:
    try:
        resolve_weights(name)
    except InputError:
        return False
    return True


def _write(directory: Path, part: str, architecture: Mapping[str, Any]) -> Path:
    try:
        module = registry.build(architecture)
    except (TypeError, ValueError) as error:
        raise InputError(f"--generator: {error}") from error
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), registry.shapes_of(module))
    more = {"w_avg": np.zeros(module.w_dim, np.float32)} if part == "generator" else {}
    return save_weights(
        directory,
        {part: variables, **more},
        family="stand-in",
        architectures={part: registry.describe(module)},
        licence="none",
    )
