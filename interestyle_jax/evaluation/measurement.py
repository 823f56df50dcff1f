"""One encoder's pass over the samples: what is measured of every image."""

import dataclasses
import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from interestyle_jax.evaluation.grids import to_uint8
from interestyle_jax.evaluation.metrics import Distance, latent_variance, region_distances
from interestyle_jax.evaluation.samples import Samples
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.resize import Shape, crop_to_shape, encoder_input

# Images and inversions, uint8 [n, S, S, 3] -> similarity [n], NaN where there is no face.
Identity = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Region -> field of its mask; None is the whole image.
REGIONS = {"interest": "interest_mask", "face": "face_mask", "whole": None}


@dataclasses.dataclass(frozen=True)
class Examples:
    """The first images and inversions, as measured, for grids; S is the encoder's input size.

    Attributes:
      samples: {field: [k, S, S, C]}.
      images: y_hat_1 ... y_hat_N, [k, N, S, S, 3].
      clean_image: y_hat_N of the clean images, [k, S, S, 3], or None.
    """

    samples: dict[str, np.ndarray]
    images: np.ndarray
    clean_image: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one encoder did with the samples.

    Attributes:
      values: {name: value of each image [n]}: "interest/l2", "leakage/lpips", ...;
        "latent_variance" [n, N]; and "id_similarity" where it is measured, NaN without a face.
      seconds_per_image: of the inversion alone, median over the batches, compilation excluded.
      examples: the first images.
    """

    values: dict[str, np.ndarray]
    seconds_per_image: float
    examples: Examples

    @property
    def num_images(self) -> int:
        """How many images were measured."""
        return len(self.values["latent_variance"])


def as_measured(
    images: Float[jax.Array | np.ndarray, "*B H W 3"], shape: Shape
) -> Float[np.ndarray, "*B h w 3"]:
    """Inversions as the official scripts see them: saved as 8 bits, then resized by PIL.

    [..., H, W, 3], not clipped -> float32 [..., *shape, 3] in [-1, 1]. Saving clips and rounds to
    nearest, as `interestyle invert` does; the official code cuts the fraction off instead, which
    is darker by half a grey level.
    """
    saved = to_uint8(np.asarray(images))
    flat = saved.reshape(-1, *saved.shape[-3:])
    return np.stack([encoder_input(image, shape) for image in flat]).reshape(
        *saved.shape[:-3], *shape, 3
    )


def measure_encoder(
    model: Model,
    samples: Samples,
    lpips: Distance,
    *,
    num_steps: int | None,
    num_examples: int,
    label: str,
    identity: Identity | None = None,
) -> Measurement:
    """Inverts every sample and measures it at the encoder's input size, see `as_measured`.

    Args:
      model: with generator, encoder and w_avg.
      samples: what to measure on.
      lpips: pure and hashable, (a, b) [B, S, S, 3] -> [B].
      num_steps: N of encoders that see the previous result; None is 5. The others run once.
      num_examples: how many images to keep for grids.
      label: the encoder's name, for the progress bar.
      identity: the ID metric, or None to leave it out. It sees both images times the interest
        mask (grey outside), as section 4.1 of the paper measures it; whole ones without masks.

    Raises:
      InputError: from reading the samples.
    """
    num_steps = 1 if model.iterations() == 1 else model.iterations(num_steps)
    values, seconds = defaultdict(list), []
    examples: dict[str, list[np.ndarray]] = defaultdict(list)
    kept, shape = 0, model.input_shape
    for batch, valid in tqdm(samples.batches(shape), desc=label, unit="batch"):
        if not seconds:
            # Compiles outside of the timing.
            jax.block_until_ready(model.invert(batch["image"], num_steps))
        begun = time.perf_counter()
        inversion = jax.block_until_ready(model.invert(batch["image"], num_steps))
        seconds.append((time.perf_counter() - begun) / len(valid))
        last = as_measured(inversion.images[-1], shape)
        clean = {}
        if "clean" in batch:
            found = model.invert(batch["clean"], num_steps).images[-1]
            clean = {"clean_image": as_measured(found, shape)}
        measured = _measure(batch, inversion.w_plus, last, **clean, lpips=lpips)
        for name, value in measured.items():
            values[name].append(np.asarray(value)[valid])
        if identity is not None:
            mask = batch.get("interest_mask", 1.0)
            pair = (to_uint8(x * mask)[valid] for x in (batch["image"], last))
            values["id_similarity"].append(identity(*pair))
        # Only the last batch is padded, at its end.
        count = min(num_examples - kept, int(valid.sum()))
        if count > 0:
            kept += count
            images = as_measured(inversion.images[:, :count], shape).swapaxes(0, 1)
            for name, value in {**batch, "images": images, **clean}.items():
                examples[name].append(np.asarray(value)[:count])
    parts = {name: np.concatenate(value) for name, value in examples.items()}
    images, clean_image = parts.pop("images"), parts.pop("clean_image", None)
    return Measurement(
        values={name: np.concatenate(value) for name, value in values.items()},
        seconds_per_image=float(np.median(seconds)),
        examples=Examples(parts, images, clean_image),
    )


def measure_mean_latent(
    model: Model, samples: Samples, lpips: Distance
) -> dict[str, Float[np.ndarray, " n"]]:
    """Distances of every image to G(w_avg), {"interest/l2": [n], ...}, as `measure_encoder`."""
    values = defaultdict(list)
    shape = model.input_shape
    average = as_measured(crop_to_shape(model.synthesize(model.mean_latent()), shape), shape)
    for batch, valid in samples.batches(shape):
        for name, value in _measure_regions(batch, average, lpips=lpips).items():
            values[name].append(np.asarray(value)[valid])
    return {name: np.concatenate(value) for name, value in values.items()}


def _regions(batch: dict[str, jax.Array], image: jax.Array, lpips: Distance) -> dict[str, Any]:
    """Distances of the images to `image` on every region that has a mask."""
    measured = {}
    for region, field in REGIONS.items():
        if field is not None and field not in batch:
            continue
        mask = None if field is None else batch[field]
        distances = region_distances(batch["image"], image, mask, lpips=lpips)
        measured |= {f"{region}/{name}": value for name, value in distances.items()}
    return measured


@functools.partial(jax.jit, static_argnames="lpips")
def _measure_regions(batch, average, *, lpips):
    return _regions(batch, jnp.broadcast_to(average, batch["image"].shape), lpips)


@functools.partial(jax.jit, static_argnames="lpips")
def _measure(batch: dict[str, jax.Array], w_plus, last, clean_image=None, *, lpips):
    """{value name: [B]} of one batch and its inversions as `as_measured` gives them."""
    measured = _regions(batch, last, lpips)
    if clean_image is not None and "interest_mask" in batch:
        leakage = region_distances(last, clean_image, batch["interest_mask"], lpips=lpips)
        measured |= {f"leakage/{name}": value for name, value in leakage.items()}
    measured["latent_variance"] = latent_variance(w_plus).T
    return measured
