"""What each channel of a generator's S space does to CLIP's image feature: fs3, measured.

For every channel some images are drawn with it lowered and raised by so many of its standard
deviations around its mean; the mean change of CLIP's feature is its effect. Source: StyleCLIP
section 6, `global/SingleChannel.py` (there for 11 layers; here for all but ToRGB).
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.editing.clip import Clip
from interestyle_jax.editing.style_space import counted_layers, join_styles, split_styles
from interestyle_jax.editing.styleclip.channel_parts import ChannelParts
from interestyle_jax.editing.styleclip.global_directions import channel_effects
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.models import registry
from interestyle_jax.models.clip import unit
from interestyle_jax.models.clip_pixels import clip_pixels
from interestyle_jax.models.stylegan2 import StyleLayer
from interestyle_jax.parallel.sharding import batch_sharding, make_mesh, replicated
from interestyle_jax.weights import check_destination, digest, load_weights, save_weights

FAMILY = "styleclip_global"
LICENCE = "as the generator and the CLIP that they were measured with"
# Of how many channels a part holds the effects: what a stopped run loses at most.
CHANNELS_PER_PART = 16


class StyleStatistics(NamedTuple):
    """S of random samples.

    Attributes:
      mean: [C], flat, ToRGB counted.
      std: [C], population standard deviations.
      first: [N, C], of the first samples.
    """

    mean: np.ndarray
    std: np.ndarray
    first: np.ndarray


def style_statistics(
    key: PRNGKeyArray,
    model: Model,
    *,
    num_samples: int,
    num_first: int,
    truncation_psi: float,
    batch_size: int,
) -> StyleStatistics:
    """Means and deviations of S over random samples, the same w in all rows.

    Args:
      key: of the samples.
      model: with a generator, and its mean latent where `truncation_psi` is not 1.
      num_samples: for the statistics, the official 100,000.
      num_first: samples to keep, at most `num_samples`.
      truncation_psi: the official 0.7.
      batch_size: samples at once.

    Raises:
      InputError: numbers out of range.
    """
    if not 1 <= num_first <= num_samples:
        raise InputError(f"num_images: {num_first}, expected 1 to num_samples ({num_samples})")
    generator = registry.build(model.metadata["architectures"]["generator"])
    total: Any = 0.0
    squares: Any = 0.0
    first = []
    for i, start in enumerate(range(0, num_samples, batch_size)):
        z = jax.random.normal(jax.random.fold_in(key, i), (batch_size, generator.z_dim))
        w = model.map(z, truncation_psi=truncation_psi)
        w_plus = jnp.repeat(w[:, None], generator.num_styles, axis=1)
        joined = join_styles(model.styles(w_plus), model.style_layers)
        flat = np.asarray(joined, np.float64)[: num_samples - start]
        total, squares = total + flat.sum(axis=0), squares + np.square(flat).sum(axis=0)
        if start < num_first:
            first.append(flat[: num_first - start])
    mean = total / num_samples
    std = np.sqrt(np.maximum(squares / num_samples - np.square(mean), 0))
    return StyleStatistics(mean, std, np.concatenate(first).astype(np.float32))


def measure_channels(
    weights: str | Path,
    clip: Clip,
    out: str | Path,
    *,
    num_images: int = 100,
    num_samples: int = 20_000,
    deviations: float = 5.0,
    truncation_psi: float = 0.7,
    batch_size: int = 32,
    seed: int = 0,
    licence: str = LICENCE,
    dtype: str | None = None,
    force: bool = False,
    shard: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> Path | None:
    """Writes the channels' effects of a generator as weights of the family "styleclip_global".

    It draws 2 `num_images` images a channel (6048 at 1024), on all devices of this process, and
    keeps what it has beside `out`, in OUT.parts: the same call continues after a stop. Several
    processes share OUT.parts alone; the one that finds all parts there writes `out`, the same as
    one process does.

    Args:
      weights: name or directory of weights with a generator.
      clip: whose features change.
      out: the weight directory to write.
      num_images: samples that each channel is changed in.
      num_samples: for the statistics of S.
      deviations: how far a channel is lowered and raised around its mean.
      truncation_psi: of the samples.
      batch_size: images at once on each device.
      seed: of the samples.
      licence: for its metadata.
      dtype: it is stored as; None: float32.
      force: replace an existing `out`; not with several processes.
      shard: (i, n), the parts i, i + n, ... are this process'.
      report: gets a line a part.

    Returns:
      `out`, or None where other processes have not ended their parts.

    Raises:
      InputError: `out` exists, parts of another call lie there, or what the weights lack.
      MachineError: the disk is full or fails.
    """
    out = Path(out)
    index, count = shard
    if count == 1:
        check_destination(out, force)
    elif force:
        raise InputError(f"--force: several processes do not replace {out}; delete it first")
    if not deviations > 0:
        raise InputError(f"deviations: {deviations}, expected above 0")
    model = load(weights)
    layers = model.style_layers
    made_with = {
        "generator": model.generator_fingerprint,
        "clip": digest(clip.directory),
        "num_images": num_images,
        "num_samples": num_samples,
        "deviations": deviations,
        "truncation_psi": truncation_psi,
        "seed": seed,
    }
    if count > 1 and _is_made(out, made_with):
        return out
    statistics = style_statistics(
        jax.random.key(seed),
        model,
        num_samples=num_samples,
        num_first=num_images,
        truncation_psi=truncation_psi,
        batch_size=min(batch_size, num_samples),
    )
    starts = np.cumsum([0, *(layer.channels for layer in layers)])
    channels = np.concatenate(
        [np.arange(starts[i], starts[i + 1]) for i in counted_layers(layers, with_rgb=False)]
    )
    parts = ChannelParts(out.with_name(f"{out.name}.parts"), made_with)
    measure = _Measure(model, clip, statistics, deviations, batch_size)
    every = [
        channels[i : i + CHANNELS_PER_PART] for i in range(0, len(channels), CHANNELS_PER_PART)
    ]
    own, num_done = range(index, len(every), count), 0
    for i in own:
        num_done += len(every[i])
        if parts.read(i) is None:
            parts.write(i, channel_effects(measure(every[i])))
            report(f"{out}: {num_done} of {sum(len(every[k]) for k in own)} channels")
    with parts.alone():
        if count == 1 or not _is_made(out, made_with):
            found = [parts.read(i) for i in range(len(every))]
            if any(effects is None for effects in found):
                return None
            save_weights(
                out,
                {"fs3": np.concatenate(found), **_statistics_by_layer(statistics, layers)},
                family=FAMILY,
                architectures={},
                licence=licence,
                dtype=dtype,
                force=force,
                extra={"made_with": made_with},
            )
        parts.remove()
    return out


def _is_made(out: Path, made_with: dict[str, Any]) -> bool:
    """Whether another process of this call wrote `out`; InputError where it is something else."""
    if not out.exists():
        return False
    if load_weights(out).metadata["extra"].get("made_with") != made_with:
        check_destination(out, force=False)
    return True


def _statistics_by_layer(statistics: StyleStatistics, layers: Sequence[StyleLayer]):
    return {
        name: {
            f"layer_{i}": np.asarray(x, np.float32)
            for i, x in enumerate(split_styles(jnp.asarray(flat), layers))
        }
        for name, flat in (("s_mean", statistics.mean), ("s_std", statistics.std))
    }


class _Measure:
    """Channels [k] (flat numbers) -> features [k, N, 2, E], lowered and raised."""

    def __init__(
        self,
        model: Model,
        clip: Clip,
        statistics: StyleStatistics,
        deviations: float,
        batch_size: int,
    ):
        self.mesh = make_mesh(devices=jax.local_devices())
        self.rows = batch_size * self.mesh.size
        self.statistics, self.deviations = statistics, deviations
        self.fixed = jax.device_put(
            {
                "generator": model.variables["generator"],
                "clip": clip.variables,
                "first": statistics.first,
            },
            replicated(self.mesh),
        )
        self.modules = {
            "generator": registry.build(model.metadata["architectures"]["generator"]),
            "clip": clip.module,
        }

    def __call__(self, channels: np.ndarray) -> Float[np.ndarray, "k N 2 E"]:
        count = len(self.statistics.first)
        channel, image, sign = (
            x.ravel() for x in np.meshgrid(channels, np.arange(count), (-1, 1), indexing="ij")
        )
        mean, std = self.statistics.mean, self.statistics.std
        value = (mean[channel] + sign * self.deviations * std[channel]).astype(np.float32)
        features = []
        for start in range(0, len(channel), self.rows):
            rows = [x[start : start + self.rows] for x in (channel, image, value)]
            missing = self.rows - len(rows[0])
            rows = [np.pad(x, (0, missing), mode="edge") for x in rows]
            rows = jax.device_put(rows, batch_sharding(self.mesh))
            found = np.asarray(_features(self.fixed, *rows, **self.modules))
            features.append(found[: self.rows - missing])
        return np.concatenate(features).reshape(len(channels), count, 2, -1)


@functools.partial(jax.jit, static_argnames=("generator", "clip"))
def _features(fixed, channel, image, value, *, generator, clip):
    flat = fixed["first"][image].at[jnp.arange(len(channel)), channel].set(value)
    styles = split_styles(flat, generator.style_layers)
    images = generator.apply(fixed["generator"], styles, "const", method="synthesize_from_styles")
    pixels = clip_pixels(images, clip.image_size, mean=clip.mean, std=clip.std)
    return unit(clip.apply(fixed["clip"], pixels, method="image_features"))
