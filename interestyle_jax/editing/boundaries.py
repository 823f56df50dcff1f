"""Directions from scores of latents: InterFaceGAN's boundaries.

A linear SVM separates the latents with the highest scores of an attribute from those with the
lowest; its unit normal is the direction. Source: InterFaceGAN (Shen et al. 2020) section 2.2 and
`utils/manipulator.py`.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError

# Of the chosen latents, the share that the SVM does not see.
HELD_OUT = 0.3


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A direction in W and how well it separates.

    Attributes:
      normal: [D], unit length; the score grows along it.
      offset: the boundary is where w @ normal + offset is 0.
      held_out_accuracy: share of the held-out chosen latents on their side.
      remaining_accuracy: the same of the latents that were not chosen, whose label is whether
        their score is above the middle of its range; None where there are none.
      chosen: how many latents each end had.
    """

    normal: Float[np.ndarray, " D"]
    offset: float
    held_out_accuracy: float
    remaining_accuracy: float | None
    chosen: int


def train_boundary(
    w: Float[np.ndarray, "N D"],
    scores: Float[np.ndarray, " N"],
    *,
    share: float = 0.02,
    seed: int = 0,
    regularisation: float = 1.0,
) -> Boundary:
    """Trains the linear SVM between the two ends of the scores.

    Args:
      w: latents [N, D].
      scores: [N], larger where the attribute is more there; 0 and 1 will do. NaN: not known.
      share: of N that each end has, at most a half.
      seed: of the split.
      regularisation: the SVM's C.

    Raises:
      InputError: shapes that do not agree, a share out of range, one class only, or too few.
    """
    try:
        # Late: a second of imports, for this function alone.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise InputError(
            "training a direction needs scikit-learn: pip install 'interestyle_jax[directions]'"
        ) from error

    w, scores = np.asarray(w, np.float64), np.asarray(scores, np.float64)
    if w.ndim != 2 or scores.shape != w.shape[:1]:
        raise InputError(f"scores: expected one for each of {w.shape} latents, got {scores.shape}")
    if not 0 < share <= 0.5:
        raise InputError(f"--share: expected above 0, at most 0.5, got {share}")
    known = np.isfinite(scores)
    w, scores = w[known], scores[known]
    if len(scores) == 0 or scores.min() == scores.max():
        raise InputError("scores: expected two classes at least, all known ones are equal")
    count = int(len(scores) * share)
    order = np.argsort(-scores, kind="stable")
    ends = np.concatenate([order[:count], order[len(order) - count :]])
    if count < 10:
        raise InputError(
            f"scores: {len(scores)} are known, of which --share={share} leaves {count}"
            " at each end, expected 10 at least"
        )
    middle = (scores.max() + scores.min()) / 2
    labels = np.repeat([1, 0], count)
    if scores[order[count - 1]] == scores[order[-count]]:
        raise InputError(
            f"--share: both ends reach the score {scores[order[-count]]:g}; expected less"
            f" than {share}"
        )
    shuffled = np.random.default_rng(seed).permutation(2 * count)
    held = shuffled[: max(1, int(HELD_OUT * 2 * count))]
    seen = shuffled[len(held) :]
    # About their mean, because this solver, which is fast with many latents, shrinks the intercept.
    centre = w[ends].mean(0)
    machine = LinearSVC(C=regularisation, loss="hinge", max_iter=20_000, random_state=seed)
    with warnings.catch_warnings():
        # The direction is settled long before the last digits of its length.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(w[ends[seen]] - centre, labels[seen])
    length = np.linalg.norm(machine.coef_)
    normal = machine.coef_[0] / length
    offset = float(machine.intercept_[0] / length - centre @ normal)
    rest = np.setdiff1d(np.arange(len(scores)), ends)

    def accuracy(of: np.ndarray, wanted: np.ndarray) -> float:
        return float(((w[of] @ normal + offset > 0) == wanted).mean())

    return Boundary(
        normal,
        offset,
        accuracy(ends[held], labels[held] == 1),
        accuracy(rest, scores[rest] >= middle) if len(rest) else None,
        count,
    )


def condition(
    normal: Float[np.ndarray, " D"], others: Float[np.ndarray, "K D"]
) -> Float[np.ndarray, " D"]:
    """The part [D] of a direction [D], of unit length, that moves along none of others [K, D].

    Raises:
      InputError: nothing is left of it.
    """
    normal, others = np.asarray(normal, np.float64), np.atleast_2d(np.asarray(others, np.float64))
    basis, spread, _ = np.linalg.svd(others.T, full_matrices=False)
    basis = basis[:, spread > 1e-6 * spread.max(initial=0.0)]
    left = normal - basis @ (basis.T @ normal)
    length = np.linalg.norm(left)
    if length < 1e-6 * np.linalg.norm(normal):
        raise InputError("--condition: the direction lies in the space of the others")
    return left / length


def mean_difference(
    w: Float[np.ndarray, "N D"],
    scores: Float[np.ndarray, " N"],
    *,
    others: Sequence[Float[np.ndarray, " N"]] = (),
) -> Float[np.ndarray, " D"]:
    """How w [N, D] differs, on average, by 1 of a score: [D], not of unit length.

    Where scores are 0 or 1 that is the difference of the two means, as of attribute vectors
    (Larsen et al. 2016, section 3.3); here it is the slope of least squares, so that scores between
    count too. A boundary's normal is the shortest way to another score, which leads through what
    else is different there; this is the way that the samples take, and other attributes that are
    independent of the score average out.

    Args:
      w: latents [N, D].
      scores: [N]; latents with NaN are left out.
      others: scores [N] whose own slopes are taken off (several regressors).

    Raises:
      InputError: scores that are all the same, or follow from the others.
    """
    columns = np.stack([np.asarray(x, np.float64) for x in (scores, *others)], axis=1)
    known = np.isfinite(columns).all(axis=1)
    columns, own = columns[known], np.asarray(w, np.float64)[known]
    if not len(columns):
        raise InputError("scores: none is known")
    columns, own = columns - columns.mean(0), own - own.mean(0)
    # What of the score the others do not tell; they may well follow from each other.
    left = (
        columns[:, 0]
        - columns[:, 1:] @ np.linalg.lstsq(columns[:, 1:], columns[:, 0], rcond=1e-6)[0]
    )
    if np.square(left).sum() <= 1e-6 * max(np.square(columns[:, 0]).sum(), 1e-30):
        raise InputError("scores: all known ones are equal, or follow from the --condition's")
    return (left @ own) / np.square(left).sum()


def cosines(normals: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "K K"]:
    """Cosines [K, K] of the angles between directions [K, D]."""
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return unit @ unit.T
