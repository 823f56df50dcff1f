"""Images of a generator's report: samples, steps between them, nearest training images."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from experiments.nearest import Nearest
from interestyle_jax.data.pixels import to_float
from interestyle_jax.evaluation import grids
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.models.registry import build

COLUMNS, SAMPLE_ROWS = 10, 6
SHOWN_NEAREST = 8
TRUNCATION_PSI = 0.7
STRIPS = 4


def draw_samples(
    model: Model, count: int, *, seed: int, batch_size: int, truncation_psi: float = 1.0
) -> UInt8[np.ndarray, "n R R 3"]:
    """uint8 [count, R, R, 3]: samples of `seed` with the stored noise."""
    generator = build(model.metadata["architectures"]["generator"])
    z = jax.random.normal(jax.random.key(seed), (count, generator.z_dim))
    return _drawn(model, model.map(z, truncation_psi=truncation_psi), batch_size)


def interpolation_strips(
    model: Model, *, seed: int, batch_size: int
) -> UInt8[np.ndarray, "n columns R R 3"]:
    """uint8 [STRIPS, COLUMNS, R, R, 3]: even steps in w from one sample to another."""
    generator = build(model.metadata["architectures"]["generator"])
    w = model.map(jax.random.normal(jax.random.key(seed), (2 * STRIPS, generator.z_dim)))
    share = jnp.linspace(0.0, 1.0, COLUMNS)[None, :, None]
    between = w[:STRIPS, None] + share * (w[STRIPS:, None] - w[:STRIPS, None])
    drawn = _drawn(model, between.reshape(-1, w.shape[-1]), batch_size)
    return drawn.reshape(STRIPS, COLUMNS, *drawn.shape[1:])


def _drawn(model: Model, w: jax.Array, batch_size: int) -> np.ndarray:
    count, drawn = len(w), []
    w = jnp.pad(w, [(0, -count % batch_size), (0, 0)])
    rows = build(model.metadata["architectures"]["generator"]).num_styles
    for chunk in jnp.split(w, len(w) // batch_size):
        images = model.synthesize(jnp.repeat(chunk[:, None], rows, axis=1))
        drawn.append(grids.to_uint8(np.asarray(images)))
    return np.concatenate(drawn)[:count]


def samples_grid(
    samples: UInt8[np.ndarray, "n R R 3"],
    held_out: UInt8[np.ndarray, "m R R 3"],
    truncated: UInt8[np.ndarray, "k R R 3"],
) -> UInt8[np.ndarray, "H W 3"]:
    """Held-out images above samples, and below these the first of them truncated; [H, W, 3]."""
    columns = min(COLUMNS, len(samples))
    count = min(SAMPLE_ROWS, len(samples) // columns)
    rows = [held_out[:columns], *(samples[k * columns :][:columns] for k in range(count))]
    labels = ["held-out images", "samples"] + [""] * (count - 1)
    for k in range(min(2, len(truncated) // columns)):
        rows.append(truncated[k * columns :][:columns])
        labels.append("" if k else f"psi {TRUNCATION_PSI}")
    return grids.draw_grid([list(to_float(row)) for row in rows], [""] * columns, row_labels=labels)


def strips_grid(strips: UInt8[np.ndarray, "n columns R R 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A row for each pair of samples; uint8 [H, W, 3]."""
    return grids.draw_grid([list(to_float(row)) for row in strips], [""] * strips.shape[1])


def nearest_grid(
    samples: UInt8[np.ndarray, "n R R 3"], nearest: Nearest
) -> UInt8[np.ndarray, "H W 3"]:
    """The samples most like a training image, each above that image; uint8 [H, W, 3]."""
    order = np.argsort(nearest.distance)[:SHOWN_NEAREST]
    rows = [list(to_float(samples[order])), list(to_float(nearest.image[order]))]
    labels = [f"L2 {nearest.distance[k]:.3f}" for k in order]
    return grids.draw_grid(rows, labels, row_labels=["sample", "nearest training image"])
