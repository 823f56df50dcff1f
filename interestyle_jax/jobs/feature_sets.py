"""FID and KID of inversions in a job: features of each image, kept as text in its line.

Whole sets are joined from all shards in the images' order, so that figures depend on no stop and
no shard. A line holds 11 KB for each set of Inception's features.
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.checksum import file_sha256
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.fid import (
    Extractor,
    Statistics,
    fid,
    kid,
    load_extractor,
    load_statistics,
)
from interestyle_jax.parallel.sharding import replicated
from interestyle_jax.weights import digest

STATISTICS = "fid_statistics.npz"
# Of those that kernel distances and covariances need.
FEWEST = 2


@jax.jit
def _extract(extractor: Extractor, images: jax.Array) -> jax.Array:
    return extractor(images)


class FeatureSets:
    """The features of a job's images and inversions, and the distances of their sets.

    Attributes:
      options: what the figures depend on, as JSON.
    """

    def __init__(
        self,
        mode: str,
        weights: str | Path,
        *,
        statistics: str | Path | None = None,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Loads the network, and the statistics of a set of real images where they are given.

        Raises:
          InputError: see `load_extractor` and `load_statistics`.
        """
        self._weights = digest(weights)
        self._given = None
        self.options: dict[str, Any] = {"mode": mode, "weights": self._weights}
        if statistics is not None:
            self._given = load_statistics(statistics, mode=mode, weights=self._weights)
            self.options["statistics"] = file_sha256(Path(statistics))
        self._extractor = load_extractor(
            mode, weights, place=None if mesh is None else replicated(mesh)
        )

    def extract(self, images: Float[jax.Array, "B h w 3"]) -> Float[jax.Array, "B D"]:
        """Starts the features [B, D] of images [B, h, w, 3] `as_measured`."""
        return _extract(self._extractor, images)

    def compare(
        self, real: Float[np.ndarray, "n D"], inversions: Float[np.ndarray, "n D"]
    ) -> tuple[dict[str, Any] | None, Statistics | None]:
        """{"mode", "fid", "kid_x1000", "kid_std_x1000", "num_reference"} of an encoder's set.

        Features are [n, D] of the images and [n, D] of their inversions. FID is against the given
        statistics, else against the images themselves, whose statistics are returned too; KID
        always against the images. None for fewer than two images.
        """
        if len(real) < FEWEST:
            return None, None
        mode, name = self._extractor.mode, self._weights
        own = Statistics.of(real, mode=mode, weights=name)
        reference = self._given or own
        mean, deviation = kid(real, inversions)
        found = {
            "mode": mode,
            "fid": fid(reference, Statistics.of(inversions, mode=mode, weights=name)),
            "kid_x1000": 1000 * mean,
            "kid_std_x1000": 1000 * deviation,
            "num_reference": reference.count,
        }
        return found, own


def load_feature_sets(
    mode: str,
    weights: str | Path | None,
    statistics: str | Path | None,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> FeatureSets | None:
    """The FID of `evaluate`, or None where no weights are given.

    Raises:
      InputError: statistics without weights, or as `FeatureSets`.
    """
    if weights is not None:
        return FeatureSets(mode, weights, statistics=statistics, mesh=mesh)
    if statistics is not None:
        raise InputError("fid statistics: expected the network's weights with them")
    return None


def as_text(features: Float[np.ndarray, " D"]) -> str:
    """Features [D] as text, float32 without loss."""
    return base64.b64encode(np.asarray(features, "<f4").tobytes()).decode("ascii")


def from_text(texts: Iterable[str]) -> Float[np.ndarray, "n D"]:
    """The features [n, D] of n texts."""
    return np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in texts])
