"""Directions of a generator: trained from scores, from its weights, or from many latents."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.editing.boundaries import (
    Boundary,
    condition,
    cosines,
    mean_difference,
    train_boundary,
)
from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.ganspace import principal_components
from interestyle_jax.editing.scores import Scorer, Scores
from interestyle_jax.editing.sefa import sefa
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.models.registry import build

# Directions are used so many standard deviations of w along them; SeFa's in its authors' range.
DEVIATIONS = 3.0
SEFA_RANGE = (-3.0, 3.0)
# How a direction is found from scores, and what its file calls that.
FITS = {"svm": "interfacegan", "means": "difference of means"}


def sample_w(
    key: PRNGKeyArray, model: Model, count: int, *, truncation_psi: float, batch_size: int
) -> Iterator[Float[jax.Array, "B D"]]:
    """`count` random w, in batches of one size but for the last, which is cut."""
    z_dim = build(model.metadata["architectures"]["generator"]).z_dim
    for i, start in enumerate(range(0, count, batch_size)):
        z = jax.random.normal(jax.random.fold_in(key, i), (batch_size, z_dim))
        yield model.map(z, truncation_psi=truncation_psi)[: count - start]


def deviation_along(w: Float[np.ndarray, "N D"], array: Float[np.ndarray, "*L D"]) -> float:
    """The strength at which a direction moves w by a standard deviation of w [N, D] along it.

    Args:
      w: random latents.
      array: of the direction, [D]; or [L, D], of whose rows the first to move so far counts.
    """
    rows = np.atleast_2d(np.asarray(array, np.float64))
    rows = rows[rows.any(1)]
    return float(((np.asarray(w, np.float64) @ rows.T).std(0) / (rows**2).sum(1)).min())


def draw(model: Model, w: Float[jax.Array, "B D"]) -> Float[np.ndarray, "B R R 3"]:
    """Images [B, R, R, 3] of w [B, D], the same in all rows, with the stored noise."""
    rows = build(model.metadata["architectures"]["generator"]).num_styles
    return np.asarray(model.synthesize(jnp.repeat(w[:, None], rows, axis=1)))


def score_w(
    model: Model, w: Float[np.ndarray, "N D"], scorer: Scorer, *, batch_size: int
) -> Scores:
    """Scores of the images of w [N, D]: {attribute: [N]}."""
    found: list[Scores] = []
    for start in range(0, len(w), batch_size):
        part = w[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part)), (0, 0)], mode="edge")
        scores = scorer(draw(model, jnp.asarray(padded, jnp.float32)))
        found.append({name: values[: len(part)] for name, values in scores.items()})
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


@dataclasses.dataclass(frozen=True)
class Trained:
    """Directions of attributes.

    Attributes:
      directions: one for each attribute, of unit length.
      boundaries: what they come from.
      cosines: [K, K] between the boundaries, before conditions.
    """

    directions: list[Direction]
    boundaries: list[Boundary]
    cosines: Float[np.ndarray, "K K"]


def train_directions(
    w: Float[np.ndarray, "N D"],
    scores: Scores,
    *,
    share: float,
    seed: int,
    conditions: Mapping[str, Sequence[str]],
    generator: str | None,
    source: str,
    fit: str = "svm",
    names: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
) -> Trained:
    """A direction for each attribute that is scored, or for some.

    Args:
      w: latents.
      scores: {attribute: [N]}.
      share: of the latents at each end, see `train_boundary`.
      seed: of the splits.
      conditions: {attribute: other attributes that its direction is to leave alone}.
      generator: fingerprint of the generator, or None.
      source: in words.
      fit: "svm", the boundary's normal, of unit length; or "means", how far w lies from those with
        a score of 0 to those with 1 on average (see `mean_difference`), of that length.
      names: {attribute: its direction's name}; None: from the attributes.
      only: attributes that get a direction, the others are conditions alone; None: all.

    Raises:
      InputError: see `train_boundary`, `condition`; a condition that is not scored, or a bad fit.
    """
    if fit not in FITS:
        raise InputError(f"--fit: expected one of {', '.join(FITS)}, got {fit!r}")
    attributes = list(scores if only is None else only)
    # Conditions on means need no boundary of their own.
    conditioned = {x for name in attributes for x in conditions.get(name, ()) if fit == "svm"}
    boundaries = {}
    for name in dict.fromkeys([*attributes, *sorted(conditioned & scores.keys())]):
        try:
            boundaries[name] = train_boundary(w, scores[name], share=share, seed=seed)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    directions = []
    for name in attributes:
        boundary, others = boundaries[name], list(conditions.get(name, ()))
        for other in others:
            if other not in scores or other == name:
                known = ", ".join(x for x in scores if x != name)
                raise InputError(f"--condition: {name} on {other!r}, expected some of {known}")
        array, limit = boundary.normal, 1.0
        if fit == "means":
            try:
                array = mean_difference(w, scores[name], others=[scores[x] for x in others])
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
        elif others:
            array = condition(array, np.stack([boundaries[x].normal for x in others]))
        spread = deviation_along(w, array) * float(np.linalg.norm(array))
        if fit == "svm":
            limit = DEVIATIONS * spread
        directions.append(
            Direction(
                name=file_name((names or {}).get(name, name)),
                kind="w",
                array=array.astype(np.float32),
                unit="length" if fit == "svm" else "raw",
                source=source,
                default_range=(-limit, limit),
                generator=generator,
                extra={
                    "method": FITS[fit],
                    "attribute": name,
                    "conditions": others,
                    "held_out_accuracy": boundary.held_out_accuracy,
                    "remaining_accuracy": boundary.remaining_accuracy,
                    "chosen": boundary.chosen,
                    "deviation_of_w": spread,
                },
            )
        )
    found = [boundaries[name] for name in attributes]
    return Trained(directions, found, cosines(np.stack([one.normal for one in found])))


def sefa_directions(model: Model, *, rows: Sequence[int], count: int) -> list[Direction]:
    """`sefa` of a model, as directions for these rows."""
    found, shares = sefa(model.variables["generator"]["params"], rows=rows, count=count)
    named = f"{min(rows)}-{max(rows)}"
    return [
        Direction(
            name=f"sefa_{named}_{i + 1}",
            kind="w",
            array=array.astype(np.float32),
            rows=tuple(rows),
            unit="length",
            source=f"SeFa, rows {named}",
            default_range=SEFA_RANGE,
            generator=model.generator_fingerprint,
            extra={"method": "sefa", "share": float(share)},
        )
        for i, (array, share) in enumerate(zip(found, shares, strict=True))
    ]


def ganspace_directions(
    key: PRNGKeyArray, model: Model, *, num_samples: int, count: int, batch_size: int
) -> list[Direction]:
    """`principal_components` of a model's w, as directions in standard deviations."""
    batches = sample_w(key, model, num_samples, truncation_psi=1.0, batch_size=batch_size)
    found = principal_components((np.asarray(w) for w in batches), count=count)
    if not (found.deviations > 0).all():
        raise InputError(f"--count: {count}, but w varies in {(found.deviations > 0).sum()} only")
    return [
        Direction(
            name=f"ganspace_{i + 1}",
            kind="w",
            array=(deviation * array).astype(np.float32),
            unit="std",
            source=f"GANSpace, {num_samples} samples",
            default_range=(-DEVIATIONS, DEVIATIONS),
            generator=model.generator_fingerprint,
            origin=found.mean.astype(np.float32),
            extra={"method": "ganspace", "explained": float(explained)},
        )
        for i, (array, deviation, explained) in enumerate(
            zip(found.directions, found.deviations, found.explained, strict=True)
        )
    ]


def file_name(attribute: str) -> str:
    """An attribute's name as that of a direction: "beard=chin" -> "beard_chin"."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in attribute)


def report_of(trained: Trained, moved: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a training, as JSON."""
    names = [direction.extra["attribute"] for direction in trained.directions]
    return {
        **facts,
        "directions": [
            {
                "name": direction.name,
                **direction.extra,
                "range": list(direction.default_range or ()),
            }
            for direction in trained.directions
        ],
        "cosines": {
            a: dict(zip(names, map(float, row), strict=True))
            for a, row in zip(names, trained.cosines, strict=True)
        },
        "changes": moved,
    }


def read_w(path: Path, model: Model) -> Float[np.ndarray, "N D"]:
    """Latents [N, D], one w each: the array `w` of an .npz file, or row 0 of its `w_plus`.

    `w_plus` is [N, L, D] or, as `interestyle invert` writes it, [N, iterations, L, D], of which the
    last iteration counts.

    Raises:
      InputError: no such file or array, of another width than the generator's, or of a file that
        says it is of another generator.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            name = "w" if "w" in file.files else "w_plus"
            if name not in file.files:
                raise InputError(f"{path}: expected an array w or w_plus, got {file.files}")
            w = file[name]
            made_with = str(file["generator"]) if "generator" in file.files else None
    except InputError:
        raise
    # NumPy and zipfile raise nearly anything where a file is damaged.
    except Exception as error:
        raise file_error(error, f"{path}: not a readable .npz") from error
    own = model.generator_fingerprint
    if made_with not in (None, own):
        raise InputError(f"{path}: was made with generator {made_with}, these weights hold {own}")
    if name == "w_plus" and w.ndim == 4:
        w = w[:, -1]
    if name == "w_plus" and w.ndim == 3:
        w = w[:, 0]
    w_dim = build(model.metadata["architectures"]["generator"]).w_dim
    if w.ndim != 2 or w.shape[1] != w_dim or not np.isfinite(w).all():
        raise InputError(f"{path}: {name} of shape {w.shape}, expected finite [N, {w_dim}]")
    return w.astype(np.float32)
