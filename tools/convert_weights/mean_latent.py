"""The mean latent of a generator whose file has none, by sampling its mapping network."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from interestyle_jax.models import stylegan2

from .tensor_map import Mapped

# As many as the official pSp and ReStyle trainers draw; record both in `Conversion.extra`.
SAMPLES = 100_000
SEED = 0
BATCH = 10_000


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
