"""A direction in W for a text, from samples whose images a CLIP has seen.

How w differs, on average, where images score higher for the text: least squares, as
`boundaries.mean_difference`, with a CLIP in the place of a reader of attributes. All that it needs
of the samples are covariances, so that a direction for any text is a product of small matrices.
StyleCLIP's global directions (`styleclip.global_directions`) move single channels of S instead,
which names shapes; colours, and whatever else no channel changes alone, are found here.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from interestyle_jax.editing.clip import Clip
from interestyle_jax.editing.direction_training import draw, sample_w
from interestyle_jax.editing.directions import Direction
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import load
from interestyle_jax.weights import Weights, check_destination, digest, save_weights

FAMILY = "text_directions"
LICENCE = "as the generator and the CLIP that they were measured with"
# How much the rest of the feature may move with the score: at 0 not at all, which small variances
# make a noisy wish; chosen with texts and avatars other than those of docs/results.
RIDGE = 0.3
# In standard deviations of the score.
STRENGTH_RANGE = (-4.0, 4.0)


@dataclasses.dataclass(frozen=True)
class FeatureCovariances:
    """How w and CLIP's image features vary together, over samples of a generator.

    Attributes:
      w_features: [D, E], covariances of w with the unit features.
      features: [E, E], covariances of the features.
      directory: where it was read from, for messages.
      generator: fingerprint of the generator.
      clip: digest of the CLIP's weights.
    """

    w_features: Float[np.ndarray, "D E"]
    features: Float[np.ndarray, "E E"]
    directory: Path = Path()
    generator: str | None = None
    clip: str | None = None

    default_range = STRENGTH_RANGE

    def check(self, *, w_dim: int) -> None:
        """Raises InputError where they are of a generator with another width of `w`."""
        if len(self.w_features) != w_dim:
            raise InputError(
                f"{self.directory}: measured with a w of {len(self.w_features)} numbers, this "
                f"generator's has {w_dim}"
            )

    def direction(
        self, text: Float[np.ndarray, " E"], *, name: str, ridge: float = RIDGE
    ) -> Direction:
        """The direction in W for a direction of CLIP's space.

        With u the score that leaves the rest of the feature alone (up to the ridge), it is
        cov(w, u) / cov(score, u), times the score's standard deviation.

        Args:
          text: [E], unit, of `global_directions.text_direction`; an image's score is the product of
            its feature with this.
          name: for labels.
          ridge: see RIDGE, in mean variances of a feature's numbers.

        Raises:
          InputError: a direction of another CLIP's width, or features that are all the same.
        """
        text, features = np.asarray(text, np.float64), np.asarray(self.features, np.float64)
        if text.shape != features.shape[:1]:
            raise InputError(
                f"text: CLIP's features have {len(text)} numbers, {self.directory} was measured "
                f"with {len(features)}; expected the same CLIP"
            )
        if not text @ features @ text > 0:
            raise InputError(
                f"{self.directory}: CLIP's features do not vary over the samples, or too little "
                "for the type that they are stored as"
            )
        damped = features + ridge * np.trace(features) / len(features) * np.eye(len(features))
        score = np.linalg.solve(damped, text)
        slope = np.asarray(self.w_features, np.float64) @ score / (text @ features @ score)
        return Direction(
            name,
            "w",
            (slope * np.sqrt(text @ features @ text)).astype(np.float32),
            unit="std",
            source="least squares on CLIP's features of samples",
            default_range=self.default_range,
            generator=self.generator,
            extra={"method": FAMILY, "ridge": ridge},
        )


def read_covariances(weights: Weights) -> FeatureCovariances:
    """What `measure_covariances` wrote.

    Raises:
      InputError: weights of something else.
    """
    try:
        w_features, features = (weights.variables[x] for x in ("w_features", "features"))
    except KeyError as error:
        raise InputError(
            f"{weights.directory}: no {error.args[0]}, expected weights of {FAMILY}"
        ) from error
    made = weights.metadata["extra"].get("made_with", {})
    return FeatureCovariances(
        w_features, features, weights.directory, made.get("generator"), made.get("clip")
    )


def measure_covariances(
    weights: str | Path,
    clip: Clip,
    out: str | Path,
    *,
    num_samples: int = 10_000,
    truncation_psi: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
    licence: str = LICENCE,
    dtype: str | None = None,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Writes how a generator's w and a CLIP's features vary together, as weights of FAMILY.

    Args:
      weights: name or directory of weights with a generator.
      clip: whose features count.
      out: the weight directory to write.
      num_samples: images to draw.
      truncation_psi: of the samples.
      batch_size: images at once.
      seed: of the samples.
      licence: for its metadata.
      dtype: it is stored as; None: float32.
      force: replace an existing `out`.
      report: gets a line a tenth.

    Raises:
      InputError: `out` exists, what the weights lack, or fewer than two samples.
      MachineError: the disk is full or fails.
    """
    out = Path(out)
    check_destination(out, force)
    if num_samples < 2:
        raise InputError(f"num_samples: {num_samples}, expected 2 at least")
    model = load(weights)
    sums = _Sums()
    options: dict[str, Any] = {"truncation_psi": truncation_psi, "batch_size": batch_size}
    for w in sample_w(jax.random.key(seed), model, num_samples, **options):
        before = sums.count
        sums.add(np.asarray(w), np.asarray(clip.image_features(draw(model, w))))
        if before * 10 // num_samples != sums.count * 10 // num_samples:
            report(f"{out}: {sums.count} of {num_samples} samples")
    w_features, features = sums.covariances()
    return save_weights(
        out,
        {"w_features": w_features, "features": features},
        family=FAMILY,
        architectures={},
        licence=licence,
        dtype=dtype,
        force=force,
        extra={
            "made_with": {
                "generator": model.generator_fingerprint,
                "clip": digest(clip.directory),
                "num_samples": num_samples,
                "truncation_psi": truncation_psi,
                "seed": seed,
            }
        },
    )


class _Sums:
    """Sums over samples, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self._w: Any = 0.0
        self._features: Any = 0.0
        self._products: Any = 0.0
        self._squares: Any = 0.0

    def add(self, w: Float[np.ndarray, "B D"], features: Float[np.ndarray, "B E"]) -> None:
        w, features = w.astype(np.float64), features.astype(np.float64)
        self.count += len(w)
        self._w += w.sum(0)
        self._features += features.sum(0)
        self._products += w.T @ features
        self._squares += features.T @ features

    def covariances(self) -> tuple[np.ndarray, np.ndarray]:
        w, features = self._w / self.count, self._features / self.count
        found = (
            self._products / self.count - np.outer(w, features),
            self._squares / self.count - np.outer(features, features),
        )
        return found[0].astype(np.float32), found[1].astype(np.float32)
