"""What is measured of encoders: the programs of a batch, and their values for all images."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.evaluation.metrics import latent_variance, region_distances
from interestyle_jax.evaluation.similarity import ms_ssim, num_scales, psnr
from interestyle_jax.inversion.distance import Distance
from interestyle_jax.inversion.resize import Shape, resize_saved

# Region -> field of its mask; None is the whole image.
REGIONS = {"interest": "interest_mask", "face": "face_mask", "whole": None}


@dataclasses.dataclass(frozen=True)
class Examples:
    """The first images and inversions, as measured, for grids; S is the encoder's input size.

    Attributes:
      samples: {field: [k, S, S, C]}.
      images: y_hat_1 ... y_hat_N, [k, N, S, S, 3].
      clean_image: y_hat_N of the clean images, [k, S, S, 3], or None.
      regions: where faces are found in the images and in y_hat_N, bool [k, 2, S, S], or None.
    """

    samples: dict[str, np.ndarray]
    images: np.ndarray
    clean_image: np.ndarray | None
    regions: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one encoder did with the samples.

    Attributes:
      values: {name: value of each image [n]}: "interest/l2", "leakage/lpips", ...;
        "latent_variance" [n, N]; "psnr", "ms_ssim" (from 11 pixels on); and where they are
        measured "nscd", "id_similarity", NaN without a face, and "boundary_iou", NaN without a
        region.
      seconds_per_image: of the inversion alone, median over the timed batches of all processes,
        compilation excluded; None where none of their images was measured.
      examples: the first images.
      fid: what `jobs.feature_sets` says of the inversions' features, or None.
      edit_fid: and of those of edited inversions.
      nscd_of_samples: see `style_alignment.Anchors`, or None.
    """

    values: dict[str, np.ndarray]
    seconds_per_image: float | None
    examples: Examples
    fid: dict[str, Any] | None = None
    edit_fid: dict[str, Any] | None = None
    nscd_of_samples: float | None = None

    @property
    def num_images(self) -> int:
        """How many images were measured."""
        return len(self.values["latent_variance"])


@functools.partial(jax.jit, static_argnames="shape")
def as_measured(images: Float[jax.Array, "*B H W 3"], shape: Shape) -> Float[jax.Array, "*B h w 3"]:
    """Inversions as the official scripts see them: saved as 8 bits, then resized by PIL.

    [..., H, W, 3], not clipped -> float32 [..., *shape, 3] in [-1, 1]. Saving clips and rounds to
    nearest, as `interestyle invert` does; the official code cuts the fraction off instead, which
    is darker by half a grey level.
    """
    small = resize_saved(to_uint8(images), shape)
    return to_float(small)


@functools.partial(jax.jit, static_argnames=("shape", "pairs", "plain_pairs"))
def measure(
    lpips: Distance,
    batch: Mapping[str, Float[jax.Array, "B h w _"]],
    w_plus: Float[jax.Array, "N B L D"],
    images: Float[jax.Array, "1 B H W 3"],
    *,
    clean_images: Float[jax.Array, "1 B H W 3"] | None = None,
    shape: Shape,
    pairs: bool = False,
    plain_pairs: bool = False,
) -> dict[str, Any]:
    """Measures a batch and its inversions at the encoder's input size, see `as_measured`.

    Args:
      lpips: a pytree that is called (a, b) [B, h, w, 3] -> [B], as `metrics.Lpips`.
      batch: {field: [B, *shape, C]}: "image", and where there are such "clean" and the masks.
      w_plus: latents of the images.
      images: y_hat_N.
      clean_images: y_hat_N of the clean images, for leakage; goes with an interest mask.
      shape: (h, w).
      pairs: whether images and inversions come back, for the ID metric: times the interest mask
        (grey outside), as section 4.1 of the paper measures it; whole ones without masks.
      plain_pairs: whether they come back as they are, for the boundary error.

    Returns:
      {"values": {name: [B]; "latent_variance": [B, N]}, "is_finite": [B], and with `pairs` "pair",
      with `plain_pairs` "plain_pair": uint8 [B, 2, h, w, 3]}. What is not finite has no meaning.
    """
    last = as_measured(images[-1], shape)
    values = _regions(batch, last, lpips) | {"psnr": psnr(batch["image"], last)}
    if num_scales(*shape):
        values["ms_ssim"] = ms_ssim(batch["image"], last)
    is_finite = jnp.isfinite(images).all((0, 2, 3, 4)) & jnp.isfinite(w_plus).all((0, 2, 3))
    if clean_images is not None:
        clean = as_measured(clean_images[-1], shape)
        leakage = region_distances(last, clean, batch["interest_mask"], lpips=lpips)
        values |= {f"leakage/{name}": value for name, value in leakage.items()}
        is_finite &= jnp.isfinite(clean_images).all((0, 2, 3, 4))
    values["latent_variance"] = latent_variance(w_plus).T
    measured = {"values": values, "is_finite": is_finite}
    if pairs:
        mask = batch.get("interest_mask", 1.0)
        measured["pair"] = jnp.stack([to_uint8(x * mask) for x in (batch["image"], last)], axis=1)
    if plain_pairs:
        measured["plain_pair"] = jnp.stack([to_uint8(batch["image"]), to_uint8(last)], axis=1)
    return measured


@jax.jit
def measure_mean_latent(
    lpips: Distance,
    batch: Mapping[str, Float[jax.Array, "B h w _"]],
    image: Float[jax.Array, "1 h w 3"],
) -> dict[str, Float[jax.Array, " B"]]:
    """Distances of every image to one, [1, h, w, 3], G(w_avg) `as_measured`: {name: [B]}."""
    return _regions(batch, jnp.broadcast_to(image, batch["image"].shape), lpips)


def _regions(batch: Mapping[str, jax.Array], image: jax.Array, lpips: Any) -> dict[str, jax.Array]:
    """Distances of the images to `image` on every region that has a mask."""
    measured = {}
    for region, field in REGIONS.items():
        if field is not None and field not in batch:
            continue
        mask = None if field is None else batch[field]
        distances = region_distances(batch["image"], image, mask, lpips=lpips)
        measured |= {f"{region}/{name}": value for name, value in distances.items()}
    return measured
