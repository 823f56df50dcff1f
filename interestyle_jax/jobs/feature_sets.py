"""FID and KID of inversions in a job: features of each image, kept as text in its line.

Whole sets are joined from all shards in the images' order, so that figures depend on no stop and
no shard. A line holds 11 KB for each set of Inception's features.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
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
      mode: one of `evaluation.fid.MODES`.
      options: what the figures depend on, as JSON.
    """

    def __init__(
        self,
        mode: str,
        weights: str | Path,
        *,
        statistics: str | Path | None = None,
        edit_statistics: str | Path | None = None,
        place: jax.sharding.Sharding | None = None,
    ):
        """Loads the network, and the statistics of sets of real images where they are given.

        Raises:
          InputError: see `load_extractor` and `load_statistics`.
        """
        self._weights, self.mode = digest(weights), mode
        self.options: dict[str, Any] = {"mode": mode, "weights": self._weights}

        def read(name: str, path: str | Path | None) -> Statistics | None:
            if path is None:
                return None
            found = load_statistics(path, mode=mode, weights=self._weights)
            self.options[name] = file_sha256(Path(path))
            return found

        self._given = read("statistics", statistics)
        self._given_edits = read("edit_statistics", edit_statistics)
        self._extractor = load_extractor(mode, weights, place=place)

    def extract(self, images: Float[jax.Array, "B h w 3"]) -> Float[jax.Array, "B D"]:
        """Starts the features [B, D] of images [B, h, w, 3] `as_measured`."""
        return _extract(self._extractor, images)

    def statistics(self, real: Float[np.ndarray, "n D"]) -> Statistics | None:
        """Of the features [n, D] of the images; None for fewer than two."""
        if len(real) < FEWEST:
            return None
        return Statistics.of(real, mode=self.mode, weights=self._weights)

    def compare(
        self,
        real: Float[np.ndarray, "n D"],
        own: Statistics | None,
        found: Float[np.ndarray, "n D"],
    ) -> dict[str, Any] | None:
        """{"mode", "fid", "kid_x1000", "kid_std_x1000", "num_reference"} of a set of inversions.

        FID is against the given statistics, else against the images; KID always against the images.

        Args:
          real: features [n, D] of the images.
          own: their `statistics`; None gives None.
          found: features [n, D] of their inversions.
        """
        if own is None:
            return None
        mean, deviation = kid(real, found)
        facts = self._distance(self._given or own, found)
        return facts | {"kid_x1000": 1000 * mean, "kid_std_x1000": 1000 * deviation}

    def compare_edits(
        self, own: Statistics | None, found: Float[np.ndarray, "n D"]
    ) -> dict[str, Any] | None:
        """{"mode", "fid", "num_reference"} of edited inversions' features [n, D].

        Against the statistics of real images that have what the edit gives, where these are known,
        else against all images, whose statistics are `own`; None gives None.
        """
        if own is None:
            return None
        return self._distance(self._given_edits or own, found)

    def note(self, row: Mapping[str, Any]) -> dict[str, list[str]]:
        """The features of an image as its line holds them, from its row of what was computed."""
        encoders = row["encoders"]
        return {
            "images": [as_text(x) for x in row["features"]],
            "inversions": [as_text(own["features"]) for own in encoders],
            "edited": [as_text(own["edited"]) for own in encoders if "edited" in own],
        }

    def distances(
        self, noted: Sequence[Mapping[str, Any]], encoder: int, shape: int, *, edits: Any
    ) -> tuple[dict[str, Any], Statistics | None]:
        """{"fid", "edit_fid"} of an encoder, see `compare`, and the statistics of its images.

        Args:
          noted: `note` of every image.
          encoder: its number.
          shape: the number of its images' features.
          edits: what the report calls the edits, or None where there are none.
        """
        real = from_text(own["images"][shape] for own in noted)
        statistics = self.statistics(real)
        inversions = from_text(own["inversions"][encoder] for own in noted)
        found: dict[str, Any] = {"fid": self.compare(real, statistics, inversions)}
        if edits is not None:
            edited = from_text(own["edited"][encoder] for own in noted)
            distance = self.compare_edits(statistics, edited)
            found["edit_fid"] = distance and {"edits": edits, **distance}
        return found, statistics

    def _distance(self, reference: Statistics, found: np.ndarray) -> dict[str, Any]:
        own = Statistics.of(found, mode=self.mode, weights=self._weights)
        if reference.mean.shape != own.mean.shape:
            raise InputError(
                f"FID statistics: of {len(reference.mean)} features, expected {len(own.mean)}"
            )
        distance = fid(reference, own)
        return {"mode": self.mode, "fid": distance, "num_reference": reference.count}


def load_feature_sets(
    mode: str,
    weights: str | Path | None,
    *,
    statistics: str | Path | None = None,
    edit_statistics: str | Path | None = None,
    edits: Sequence[str] = (),
    place: jax.sharding.Sharding | None = None,
) -> FeatureSets | None:
    """As `FeatureSets`; None without weights.

    Raises:
      InputError: statistics or edits without what they need, or as there.
    """
    if weights is None:
        if statistics is not None or edit_statistics is not None or edits:
            raise InputError(
                "FID statistics, edits: expected --fid-weights=DIR with them, the network's "
                "weights, or --fid-mode=lpips"
            )
        return None
    if edit_statistics is not None and not edits:
        raise InputError("--edit-statistics: expected an --edit with it")
    return FeatureSets(
        mode, weights, statistics=statistics, edit_statistics=edit_statistics, place=place
    )


def as_text(features: Float[np.ndarray, " D"]) -> str:
    """Features [D] as text, float32 without loss."""
    return base64.b64encode(np.asarray(features, "<f4").tobytes()).decode("ascii")


def from_text(texts: Iterable[str]) -> Float[np.ndarray, "n D"]:
    """The features [n, D] of n texts."""
    return np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in texts])
