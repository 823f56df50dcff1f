"""The Uninterest Filter, UnF: Eq. 2 of the paper (section 3.4)."""

import math
from collections.abc import Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.errors import InputError

REGIONS = ("uninterest", "image")


def radii_at(
    resolution: int, *, radii: Sequence[float] = (16.0, 9.0, 4.0, 1.0), reference: int = 1024
) -> tuple[float, ...]:
    """The schedule of radii, given in pixels at `reference`, in pixels at `resolution`.

    The released code blurs the full-size image (1024 for FFHQ) and resizes it afterwards, so its
    radii 16, 9, 4, 1 are 4, 2.25, 1, 0.25 at 256.

    Raises:
      InputError: resolution or reference below 1, or a negative radius.
    """
    if resolution < 1 or reference < 1:
        raise InputError(
            f"filter_reference: expected sizes from 1, got {reference} at resolution {resolution}"
        )
    if any(not (math.isfinite(r) and r >= 0) for r in radii):
        raise InputError(f"filter_radii: expected numbers from 0, got {tuple(radii)}")
    return tuple(float(r) * resolution / reference for r in radii)


def low_pass(image: Float[jax.Array, "B H W C"], radius: float) -> Float[jax.Array, "B H W C"]:
    """Gaussian blur whose borders repeat the edge pixels.

    Args:
      image: [B, H, W, C].
      radius: standard deviation in pixels, above 0; a Python number. The kernel reaches
        ceil(3 radius) pixels to either side.

    Returns:
      [B, H, W, C]. `dm_pix.gaussian_blur` alone would pad with zeros and darken the borders.
    """
    half = math.ceil(3 * radius)
    # dm_pix knows float32 alone, and names no precision: without, it would be TF32 on GPUs.
    padded = jnp.pad(
        image.astype(jnp.float32), ((0, 0), (half, half), (half, half), (0, 0)), mode="edge"
    )
    with jax.default_matmul_precision("highest"):
        blurred = pix.gaussian_blur(padded, radius, 2 * half + 1, padding="VALID")
    return blurred.astype(image.dtype)


def filter_uninterest(
    image: Float[jax.Array, "B H W 3"],
    mask: Float[jax.Array, "B H W 1"],
    radius: float | None,
    *,
    region: str = "uninterest",
) -> Float[jax.Array, "B H W 3"]:
    """I_i of Eq. 2: the image with its uninterest region blurred.

    Args:
      image: I, [B, H, W, 3] in [-1, 1].
      mask: interest mask, [B, H, W, 1] in [0, 1].
      radius: standard deviation in pixels of this image; 0 or None gives `image` itself.
      region: "uninterest" is the paper, I * mask + LPF(I * (1 - mask)); "image" blurs the whole
        image, as the released code does.

    Returns:
      [B, H, W, 3].

    Raises:
      InputError: unknown region, negative radius, or a mask of another size.
    """
    if region not in REGIONS:
        raise InputError(f"filter_region: expected one of {REGIONS}, got {region!r}")
    if not radius:
        return image
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"filter_radii: expected numbers from 0, got {radius}")
    if region == "image":
        return low_pass(image, radius)
    if image.ndim != 4 or mask.shape != (*image.shape[:3], 1):
        raise InputError(f"mask: expected {(*image.shape[:3], 1)}, got {mask.shape}")
    return image * mask + low_pass(image * (1 - mask), radius)


def schedule(radii: Sequence[float], num_iterations: int) -> tuple[float, ...]:
    """The radius of each of N iterations; the last one's is 0.

    Of a longer schedule the end is used, so that the last blur is always its mildest; an empty one
    means no filter.

    Raises:
      InputError: fewer radii than iterations before the last.
    """
    count = num_iterations - 1
    if radii and len(radii) < count:
        raise InputError(
            f"filter_radii: expected {count} radii for {num_iterations} iterations (or none), "
            f"got {len(radii)}"
        )
    used = tuple(radii)[len(radii) - count :] if radii else (0.0,) * count
    return (*used, 0.0)


def filtered_inputs(
    image: Float[jax.Array, "B H W 3"],
    mask: Float[jax.Array, "B H W 1"],
    num_iterations: int,
    radii: Sequence[float],
    *,
    region: str = "uninterest",
) -> tuple[Float[jax.Array, "B H W 3"], ...]:
    """I_1 ... I_N of Eq. 2; the last is `image` itself, bit for bit.

    Args:
      image: [B, H, W, 3] in [-1, 1].
      mask: [B, H, W, 1] in [0, 1].
      num_iterations: N.
      radii: in pixels of this image, see `schedule`.
      region: see `filter_uninterest`.

    Raises:
      InputError: as `schedule` and `filter_uninterest`.
    """
    return tuple(
        filter_uninterest(image, mask, radius, region=region)
        for radius in schedule(radii, num_iterations)
    )
