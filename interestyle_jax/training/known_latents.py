"""The latent of an image that is known: the avatars', whose generator learnt from their factors.

`DistillationTask` trains an embedding from factors to w, and exports it as the last layers of the
mapping network, behind layers that compute the factors from z. Here it is taken out again.
"""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.data.avatars.factors import Factors
from interestyle_jax.errors import InputError
from interestyle_jax.models.factor_embedding import FactorEmbedding
from interestyle_jax.models.stylegan2 import MAPPING_RATE
from interestyle_jax.training.factor_mapping import LAYERS, factor_layers
from interestyle_jax.training.factor_prior import factors_of_z

# Of a mapping network stored in half types, against the computed one.
TOLERANCE = 2e-3
# Which no image of the avatar world shows: its own backgrounds lie before them.
HIDDEN = "background."


def embedding_of(generator: Any, mapping: Any, factors: Factors) -> dict[str, Any]:
    """The embedding inside of an exported generator's mapping network.

    Args:
      generator: its module.
      mapping: the parameters of its mapping network.
      factors: of the style that it was trained on.

    Returns:
      The parameters of a `FactorEmbedding`, for `known_w`.

    Raises:
      InputError: the mapping network does not compute these factors.
    """
    stored = [_layer(mapping[f"dense_{i}"]) for i in range(generator.mapping_depth)]
    try:
        computed, read, constant = factor_layers(
            factors, z_dim=generator.z_dim, width=generator.w_dim
        )
    except InputError:
        computed = []
    if not computed or len(stored) <= LAYERS or not all(map(_same, computed, stored)):
        raise InputError(
            "config.weights.generator: expected one that learnt from the avatars' factors "
            "(configs/avatar_generator.py), for config.known_latents"
        )
    # The first layer of the embedding was multiplied into what reads the factors.
    kernel, bias = stored[LAYERS]
    kernel = np.linalg.lstsq(read, kernel, rcond=None)[0]
    layers = [(kernel, bias - constant @ kernel), *stored[LAYERS + 1 :]]
    return {
        f"dense_{i}": {
            "kernel": (kernel * math.sqrt(len(kernel))).astype(np.float32),
            "bias": bias.astype(np.float32),
        }
        for i, (kernel, bias) in enumerate(layers)
    }


def _layer(stored: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = (np.asarray(stored[name], np.float64) for name in ("kernel", "bias"))
    return kernel * (MAPPING_RATE / math.sqrt(len(kernel))), bias * MAPPING_RATE


def _same(computed: tuple[np.ndarray, ...], stored: tuple[np.ndarray, ...]) -> bool:
    return all(
        a.shape == b.shape and np.abs(a - b).max() <= TOLERANCE * np.abs(a).max()
        for a, b in zip(computed, stored, strict=True)
    )


def known_w(embedding: dict[str, Any], factors: Float[jax.Array, "B F"]) -> Float[jax.Array, "B D"]:
    """The w [B, D] with which the generator draws avatars of these factors [B, F]."""
    w_dim = len(embedding["dense_0"]["bias"])
    return FactorEmbedding(w_dim, len(embedding)).apply({"params": embedding}, factors)


def without_hidden(factors: Factors) -> Float[np.ndarray, " F"]:
    """1 for each factor that an image shows, 0 for those of its plain background.

    A factor of 0 is its mean: an encoder that cannot see it would only learn that, slowly.
    """
    return np.array([not name.startswith(HIDDEN) for name in factors.names], np.float32)


def with_other_kinds(
    factors: Factors, values: Float[np.ndarray, "B F"], part: str
) -> Float[np.ndarray, "B F"]:
    """Avatars' factors [B, F] where each has the kind of `part` of the one before."""
    known = [i for i, name in enumerate(factors.names) if name.startswith(f"{part}=")]
    changed = values.copy()
    changed[:, known] = np.roll(values[:, known], 1, axis=0)
    return changed


def sample_factors(factors: Factors, count: int) -> Float[np.ndarray, "B F"]:
    """`count` avatars' factors, always the same ones."""
    width = len(factors.names)
    z = np.random.default_rng(0).standard_normal((count, width))
    return factors_of_z(factors, z).astype(np.float32)
