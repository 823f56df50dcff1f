"""The mean latent: as a file has it, or by sampling the mapping network of one that has none."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.models import stylegan2

from .tensor_map import Entry, Mapped, Section

# As many as the official pSp and ReStyle trainers draw; record both in `Conversion.extra`.
SAMPLES = 100_000
SEED = 0
BATCH = 10_000

# Of a file's section and of the part that it becomes.
SOURCE, PART, SHAPE = "latent_avg", "w_avg", "latent_avg_shape"


def w_avg_section(array: Float[np.ndarray, "..."], generator: stylegan2.Generator) -> Section:
    """What becomes of a file's `latent_avg`: [D] or [L, D], with leading axes of one or without."""
    rows = array.reshape(-1, array.shape[-1]).shape if array.ndim else ()
    shape = (generator.w_dim,) if array.ndim < 2 else (generator.num_styles, generator.w_dim)
    is_one = array.ndim > 1 and array.shape[:-2] == (1,) * (array.ndim - 2)
    if is_one and rows in ((1, generator.w_dim), (generator.num_styles, generator.w_dim)):
        shape = array.shape
    return Section([Entry("", PART)], {PART: shape}, prefix=SOURCE)


def read_w_avg(mapped: Mapped) -> tuple[Mapped, dict[str, Any]]:
    """A converted section's mean latent, [D] or [L, D], and what `restore_w_avg` needs beside."""
    array = mapped.variables[PART]
    w_avg = array
    if array.ndim > 1:
        w_avg = array.reshape(-1, array.shape[-1])
        w_avg = w_avg[0] if len(w_avg) == 1 else w_avg
    extra = {SHAPE: list(array.shape)} if w_avg.shape != array.shape else {}
    return dataclasses.replace(mapped, variables=w_avg), extra


def restore_w_avg(
    w_avg: Float[np.ndarray, "*L D"], extra: Mapping[str, Any]
) -> Float[np.ndarray, "*L D"]:
    """The mean latent, [D] or [L, D], with the axes of its file; `extra` is the metadata's."""
    shape = extra.get(SHAPE, w_avg.shape)
    # A part of an inverter's file may have fewer rows than the file.
    return w_avg.reshape(shape) if np.prod(shape) == w_avg.size else w_avg


def sample_w_avg(
    variables: Mapping[str, Any],
    architecture: Mapping[str, Any],
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> Mapped:
    """The mean of `samples` mapped latents, [D] float32; the same number for the same seed.

    Args:
      variables: the generator's converted variables.
      architecture: the generator's.
      samples: how many standard normal z are mapped, `BATCH` at a time.
      seed: of the PRNG key.

    Source: rosinality `model.py` `Generator.mean_latent`; pSp `coach.py` takes 1e5 samples.
    """
    mapping = stylegan2.Mapping(architecture["w_dim"], architecture["mapping_depth"])
    params = jax.tree.map(lambda x: x.astype(np.float32), variables["params"]["mapping"])

    @jax.jit
    def mapped(params: Any, key: jax.Array) -> jax.Array:
        z = jax.random.normal(key, (BATCH, architecture["z_dim"]))
        return mapping.apply({"params": params}, z)

    total = np.zeros(architecture["w_dim"])
    for i in range(-(-samples // BATCH)):
        w = mapped(params, jax.random.fold_in(jax.random.key(seed), i))
        total += np.asarray(w[: samples - i * BATCH], np.float64).sum(axis=0)
    w_avg = (total / samples).astype(np.float32)
    return Mapped(w_avg, 0, w_avg.size, ("computed",), ())
