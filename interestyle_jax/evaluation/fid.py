"""FID, KID and CLIP-FID in named modes: features, their statistics, and distances of two sets.

Modes differ in how images are resized and scaled (`models.inception_pixels`), so their figures do
not compare: "pytorch-fid", "clean" and "nvidia" take Inception-v3's features, "clip" the image
features of a CLIP (clean-fid's CLIP-FID with ViT-B/32; its resized pixels are not rounded here).
"lpips" is no FID: it takes the features of `evaluation.frechet`, of weights that ship.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.evaluation.frechet import frechet_distance, gaussian_fit, pooled_features
from interestyle_jax.models import inception_pixels
from interestyle_jax.models.clip_pixels import clip_pixels
from interestyle_jax.weights import load_weights, resolve_weights
from interestyle_jax.whole_files import whole_file

CLIP, LPIPS = "clip", "lpips"
MODES = (*inception_pixels.MODES, CLIP, LPIPS)
# Where a mode's network is in a weight directory.
PARTS = {**dict.fromkeys(inception_pixels.MODES, "inception"), CLIP: "clip", LPIPS: "lpips"}
# torch-fidelity's and clean-fid's numbers.
NUM_SUBSETS, SUBSET_SIZE = 100, 1000


class FewImagesWarning(UserWarning):
    """A set has no more images than features: its covariance lacks rank, the distance is high."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Extractor:
    """Images -> features; a pytree, so that its weights are arguments of what is jitted.

    Attributes:
      module: Inception-v3, a CLIP, or LPIPS.
      mode: one of `MODES`.
      variables: the network's weights.
    """

    module: Any = dataclasses.field(metadata={"static": True})
    mode: str = dataclasses.field(metadata={"static": True})
    variables: Any

    def __call__(self, images: Float[jax.Array, "B H W 3"]) -> Float[jax.Array, "B D"]:
        """Features [B, D] of 8-bit images as floats [B, H, W, 3] in [-1, 1]."""
        if self.mode == CLIP:
            m = self.module
            pixels = clip_pixels(images, m.image_size, mean=m.mean, std=m.std)
            return m.apply(self.variables, pixels, method="image_features")
        if self.mode == LPIPS:
            return pooled_features(self.module, self.variables, images)
        pixels = inception_pixels.inception_pixels(images, self.mode)
        return self.module.apply(self.variables, pixels)


def load_extractor(mode: str, weights: str | Path, *, place: Sharding | None = None) -> Extractor:
    """The network of a mode from a weight directory, on the devices of `place`.

    Raises:
      InputError: unknown mode, no such weights, or another network in them.
    """
    if mode not in MODES:
        raise InputError(f"fid mode: expected one of {', '.join(MODES)}, got {mode!r}")
    module, variables = load_weights(resolve_weights(weights)).part(PARTS[mode])
    return Extractor(module, mode, jax.device_put(variables, place))


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The Gaussian of a set's features.

    Attributes:
      mean: [D].
      covariance: [D, D].
      count: images.
      mode: one of `MODES`.
      weights: digest of the network's weights.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    mode: str
    weights: str

    @classmethod
    def of(cls, features: Float[np.ndarray, "n D"], *, mode: str, weights: str) -> "Statistics":
        """Of features [n, D], n at least 2."""
        return cls(*gaussian_fit(features), len(features), mode, weights)

    def save(self, path: Path) -> None:
        """Writes `.npz`: mu and sigma as pytorch-fid has them, count, mode and weights."""
        with whole_file(path) as file:
            np.savez(
                file,
                mu=self.mean,
                sigma=self.covariance,
                count=self.count,
                mode=self.mode,
                weights=self.weights,
            )


def load_statistics(path: str | Path, *, mode: str, weights: str) -> Statistics:
    """Reads what `Statistics.save` wrote. Nothing is unpickled.

    Args:
      path: the file.
      mode: what its features have to be of.
      weights: digest of the weights that they have to be of.

    Raises:
      InputError: no such file, no statistics, damaged ones, or of another mode or other weights.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:
        raise file_error(error, f"{path}: not readable as statistics (.npz)") from error
    lacking = [n for n in ("mu", "sigma", "count", "mode", "weights") if n not in found]
    if lacking:
        raise InputError(
            f"{path}: has no {', '.join(lacking)}, expected statistics that evaluate wrote, which "
            "name their mode and weights"
        )
    mean, covariance = (_finite_numbers(path, name, found[name]) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise InputError(f"{path}: mu {mean.shape} and sigma {covariance.shape} do not fit")
    count = found["count"]
    if count.shape or count.dtype.kind not in "iu" or count < 2:
        raise InputError(f"{path}: count {count.tolist()!r}, expected a whole number from 2")
    own = {"mode": str(found["mode"]), "weights": str(found["weights"])}
    for name, expected in (("mode", mode), ("weights", weights)):
        if own[name] != expected:
            raise InputError(f"{path}: statistics of {name} {own[name]}, expected {expected}")
    return Statistics(mean, covariance, int(count), mode, weights)


def _finite_numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise InputError(f"{path}: {name} is not of finite numbers, expected floats")
    return array.astype(np.float64)


def fid(a: Statistics, b: Statistics) -> float:
    """Fréchet distance of two sets' features; `FewImagesWarning` where one has too few for it.

    Raises:
      ValueError: of two modes or two networks, or of another number of features.
    """
    if (a.mode, a.weights) != (b.mode, b.weights) or a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics: of {a.mode} and of {b.mode}, or of two networks")
    count, features = min(a.count, b.count), len(a.mean)
    if count <= features:
        warnings.warn(
            f"FID ({a.mode}): {count} images for a covariance of {features} features, whose rank "
            f"is at most {count - 1}; the figure is too high, compare it at equal numbers only",
            FewImagesWarning,
            stacklevel=2,
        )
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def kid(
    a: Float[np.ndarray, "n D"],
    b: Float[np.ndarray, "m D"],
    *,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> tuple[float, float]:
    """Kernel distance of features [n, D] and [m, D]: mean and standard deviation over subsets.

    Unbiased squared MMD with the kernel (x y / D + 1)^3 (Binkowski et al. 2018). Subsets are drawn
    without replacement, as large as the smaller set where that has less than `subset_size`.

    Raises:
      ValueError: fewer than two rows, or different D.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = min(len(a), len(b), subset_size)
    if size < 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"features: shapes {a.shape} and {b.shape}, expected at least two rows")
    rng, found = np.random.default_rng(seed), []
    for _ in range(num_subsets):
        x, y = (z[rng.choice(len(z), size, replace=False)] for z in (a, b))
        found.append(_within(x) + _within(y) - 2 * _kernel(x, y).mean())
    return float(np.mean(found)), float(np.std(found))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _within(x: np.ndarray) -> float:
    """The kernel's mean over pairs of different rows."""
    kernel, count = _kernel(x, x), len(x)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
