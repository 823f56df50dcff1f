"""Fréchet distance between the LPIPS features of two sets of images.

This is **not FID**: FID fits Gaussians to 2,048 pooled features of Inception-v3. Here the features
are those of the LPIPS trunk (AlexNet by default), averaged over space, so figures
compare with each other only, and only at one image size and number of images. Like FID the
figure is biased upwards for few images: read it beside that of two halves of real images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.data.pixels import to_float
from interestyle_jax.models.lpips import LPIPS


def gaussian_fit(
    features: Float[np.ndarray, "n D"],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
    """Mean [D] and unbiased covariance [D, D] of features [n, D], in float64.

    Raises:
      ValueError: fewer than two rows, or values that are not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features: shape {features.shape}, expected [n, D] with n at least 2")
    if not np.all(np.isfinite(features)):
        raise ValueError("features: some are not finite")
    return features.mean(axis=0), np.cov(features, rowvar=False).reshape(2 * features.shape[1:])


def frechet_distance(
    mean_a: Float[np.ndarray, " D"],
    covariance_a: Float[np.ndarray, "D D"],
    mean_b: Float[np.ndarray, " D"],
    covariance_b: Float[np.ndarray, "D D"],
) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians (Dowson & Landau 1982).

    Means are [D], covariances [D, D].
    ||m_a - m_b||^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2). The square roots come from the
    eigenvalues of symmetric matrices, so singular covariances (fewer images than features) are
    sound and nothing turns complex.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root_a @ covariance_b @ root_a
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    # Equal sets may come out a rounding error below zero.
    return float(max(distance, 0.0))


def feature_frechet_distance(
    features_a: Float[np.ndarray, "n D"], features_b: Float[np.ndarray, "m D"]
) -> float:
    """Fréchet distance of the Gaussians fitted to features [n, D] and [m, D].

    Raises:
      ValueError: as `gaussian_fit`, or different D.
    """
    if features_a.shape[1:] != features_b.shape[1:]:
        raise ValueError(f"features: shapes {features_a.shape} and {features_b.shape}, D differs")
    return frechet_distance(*gaussian_fit(features_a), *gaussian_fit(features_b))


def pooled_features(
    lpips: LPIPS,
    variables: Mapping[str, Any],
    images: Float[jax.Array, "B H W 3"],
    *,
    layers: Sequence[int] = (-1,),
) -> Float[jax.Array, "B D"]:
    """Spatial means of the compared ReLU maps, not normalised, concatenated: [B, D].

    Args:
      lpips: the network.
      variables: its variables.
      images: [B, H, W, 3] in [-1, 1].
      layers: which compared maps; the last alone (D = 256 for AlexNet) by default.
    """
    maps = lpips.apply(variables, images, method="features")
    return jnp.concatenate([maps[i].mean(axis=(1, 2)) for i in layers], axis=-1)


_compiled_features = jax.jit(pooled_features, static_argnames=("lpips", "layers"))


def image_features(
    lpips: LPIPS,
    variables: Mapping[str, Any],
    images: UInt8[np.ndarray, "n H W 3"],
    *,
    batch_size: int,
    layers: Sequence[int] = (-1,),
) -> Float[np.ndarray, "n D"]:
    """`pooled_features` of any number of images, in batches of one size.

    Args:
      lpips: the network.
      variables: its variables, best on the device.
      images: uint8 [n, H, W, 3], at least one.
      batch_size: images at a time; the last batch is filled up.
      layers: as in `pooled_features`.
    """
    features = []
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        missing = batch_size - len(chunk)
        padded = to_float(np.pad(chunk, [(0, missing), (0, 0), (0, 0), (0, 0)], mode="edge"))
        found = _compiled_features(lpips, variables, padded, layers=tuple(layers))
        features.append(np.asarray(found)[: len(chunk)])
    return np.concatenate(features)
