"""NSCD: how far inversions lie from what a generator's own samples are in S space.

Source: LSAP (Cao et al., arXiv 2209.12746): the normalized style space, and its cosine distance, of
which the authors say that it tells how editable a latent is. As their code has it (`sncd`, in
github.com/caopulan/GANInverter): the style of each convolution and of the last ToRGB is scaled to
unit length; an anchor is the mean of such styles of random w, not scaled again. They add up
- style . anchor over the layers, as a loss; here 1 minus the mean over the layers is reported.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.inversion.inverter import Model
from interestyle_jax.models.stylegan2 import StyleLayer

# The authors take 100,000.
NUM_SAMPLES, BATCH_SIZE, SEED = 10_000, 1_000, 0
MAPPING = "mapping"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Anchors:
    """The mean of unit styles of a generator's samples.

    Attributes:
      styles: [C] for each of `compared_layers`.
      of_samples: the NSCD of the samples themselves, the mean: what a latent of theirs has.
    """

    styles: tuple[jax.Array, ...]
    of_samples: jax.Array


def compared_layers(layers: Sequence[StyleLayer]) -> tuple[int, ...]:
    """Numbers of the layers of S that are compared: all convolutions, and the last ToRGB."""
    last = max(i for i, layer in enumerate(layers) if layer.is_rgb)
    return tuple(i for i, layer in enumerate(layers) if not layer.is_rgb or i == last)


def measure_anchors(model: Model, *, num_samples: int = NUM_SAMPLES) -> Anchors | None:
    """The anchors of a generator, over random w; None where it has no mapping network.

    Args:
      model: has the generator.
      num_samples: whole thousands are drawn, at least one.
    """
    if MAPPING not in model.variables["generator"]["params"]:
        return None
    module, place = model.network("generator"), model.replicated_sharding
    random, total = np.random.RandomState(SEED), None
    num_batches = -(-num_samples // BATCH_SIZE)
    for _ in range(num_batches):
        z = random.randn(BATCH_SIZE, module.z_dim).astype(np.float32)
        mean = _mean_of_samples(model.variables["generator"], jax.device_put(z, place), module)
        total = mean if total is None else _add(total, mean)
    return _anchors(total, num_batches)


@functools.partial(jax.jit, static_argnames="module")
def nscd(
    anchors: Anchors, variables: Any, w_plus: Float[jax.Array, "N B L D"], *, module: Any
) -> Float[jax.Array, " B"]:
    """NSCD [B] of the last of w_plus [N, B, L, D]; from 0 to 2, lower is nearer to samples.

    Args:
      anchors: of the generator.
      variables: the generator's.
      w_plus: latents of each iteration.
      module: the generator.
    """
    units = _unit_styles(variables, w_plus[-1], module)
    cosines = [(own * anchor).sum(-1) for own, anchor in zip(units, anchors.styles, strict=True)]
    return _distance(jnp.stack(cosines))


def _unit_styles(variables: Any, w_plus: jax.Array, module: Any) -> list[jax.Array]:
    styles = module.apply(variables, w_plus, method="styles")
    chosen = [styles[i].astype(jnp.float32) for i in compared_layers(module.style_layers)]
    return [style / jnp.linalg.norm(style, axis=-1, keepdims=True) for style in chosen]


@functools.partial(jax.jit, static_argnames="module")
def _mean_of_samples(variables: Any, z: jax.Array, module: Any) -> list[jax.Array]:
    w = module.apply(variables, z, method="map")
    w_plus = jnp.broadcast_to(w[:, None], (len(w), module.num_styles, w.shape[-1]))
    return [units.mean(axis=0) for units in _unit_styles(variables, w_plus, module)]


@jax.jit
def _add(a: list[jax.Array], b: list[jax.Array]) -> list[jax.Array]:
    return jax.tree.map(jnp.add, a, b)


@functools.partial(jax.jit, static_argnames="count")
def _anchors(total: list[jax.Array], count: int) -> Anchors:
    means = tuple(mean / count for mean in total)
    # The mean over samples of style . anchor is anchor . anchor.
    return Anchors(means, _distance(jnp.stack([jnp.square(mean).sum() for mean in means])))


def _distance(cosines: jax.Array) -> jax.Array:
    # Equal directions may come out a rounding error below zero.
    return jnp.maximum(1 - cosines.mean(axis=0), 0.0)
