"""The work of `interestyle directions`: directions of a generator's weights, and their files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from interestyle_jax.editing import direction_effects as effects
from interestyle_jax.editing import direction_training as training
from interestyle_jax.editing import scores as scoring
from interestyle_jax.editing.bands import parse_rows
from interestyle_jax.editing.direction_table import table
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.editing.edits import num_rows
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder


def write_trained(
    weights: str | Path,
    out: str | Path,
    *,
    attributes: Sequence[str],
    scores: str = "attributes",
    reader: str | Path = "avatar_attributes",
    latents: str | Path | None = None,
    share: float = 0.02,
    conditions: Mapping[str, Sequence[str]] | None = None,
    on_all: bool = False,
    fit: str = "svm",
    names: Sequence[str] = (),
    truncation_psi: float = 1.0,
    num_samples: int = 20_000,
    num_changed: int = 200,
    batch_size: int = 64,
    seed: int = 0,
) -> list[Direction]:
    """Trains a direction for each attribute, and measures what it changes (InterFaceGAN).

    Writes NAME.npz of each, `report.json`, `table.md` and `scores.csv`.

    Args:
      weights: name or directory of weights with a generator.
      out: folder, made where missing.
      attributes: what is scored, "beard", "mouth=smile", "yaw".
      scores: who scores samples, of `scores.SCORERS`, or a file with a row for each of `latents`.
      reader: weights of the reader of attributes.
      latents: w [N, D] in place of random samples, see `direction_training.read_w`.
      share, fit: as `direction_training.train_directions`.
      conditions: {attribute: others that its direction leaves alone}.
      on_all: each direction leaves all other attributes alone.
      names: of the directions, one an attribute; empty: from the attributes.
      truncation_psi, num_samples: of random samples.
      num_changed: samples that are edited for the report.
      batch_size: images at once.
      seed: of samples and splits.

    Raises:
      InputError: names or latents that do not go with the rest, or as `train_directions`,
        `make_scorer` and `read_scores`.
    """
    from_file = scores not in scoring.SCORERS
    if from_file and latents is None:
        raise InputError(f"--scores={scores}: needs --latents, a row of the file for each")
    if len(set(map(training.file_name, names or attributes))) < len(attributes):
        raise InputError(f"--attribute: {list(attributes)} are not all of one name each")
    if len(names) not in (0, len(attributes)):
        raise InputError(f"--name: {len(names)} for {len(attributes)} times --attribute")
    model, scorer = load(weights), None
    if not from_file:
        scorer = scoring.make_scorer(
            scores, attributes, weights=str(reader), all_names=on_all and fit == "means"
        )
    samples_key, changed_key = jax.random.split(jax.random.key(seed))
    options: dict[str, Any] = {"truncation_psi": truncation_psi, "batch_size": batch_size}
    if latents is not None:
        w, source = training.read_w(Path(latents), model), f"{latents}"
    else:
        w = np.concatenate([*training.sample_w(samples_key, model, num_samples, **options)])
        source = f"{len(w)} samples at psi {truncation_psi:g}, seed {seed}"
    if scorer is None:
        found = scoring.read_scores(Path(scores), attributes, count=len(w))
    else:
        found = training.score_w(model, w, scorer, batch_size=batch_size)
    trained = training.train_directions(
        w,
        found,
        share=share,
        seed=seed,
        conditions=_conditions(attributes, conditions or {}, list(found) if on_all else []),
        generator=model.generator_fingerprint,
        source=f"scores {scores} of {source}",
        fit=fit,
        names=dict(zip(attributes, names, strict=False)),
        only=attributes,
    )
    moved: dict[str, Any] = {}
    if scorer is not None:
        fresh = np.concatenate([*training.sample_w(changed_key, model, num_changed, **options)])
        if isinstance(scorer, scoring.AttributeScorer):
            measured = effects.with_measured_ranges(
                model, fresh, trained.directions, scorer.reader, batch_size=batch_size
            )
            trained = dataclasses.replace(trained, directions=measured)
        moved = effects.changes(model, fresh, trained.directions, scorer, batch_size=batch_size)
    facts = {"weights": str(weights), "scores": scores, "source": source}
    report = training.report_of(trained, moved, facts)
    with output_folder(Path(out)) as folder:
        _save(folder, trained.directions)
        write_json(folder / "report.json", report)
        (folder / "table.md").write_text(table(report), encoding="utf-8")
        scoring.write_scores(folder / "scores.csv", {name: found[name] for name in attributes})
    return trained.directions


def write_sefa(
    weights: str | Path, out: str | Path, *, rows: str | None = None, count: int = 5
) -> list[Direction]:
    """Writes NAME.npz of `count` directions of the weights alone (SeFa).

    Args:
      weights: name or directory of weights with a generator.
      out: folder, made where missing.
      rows: of w_plus, "0-3"; None: all that convolutions read.
      count: how many.

    Raises:
      InputError: rows that are none, or more directions than w has numbers.
    """
    model = load(weights)
    # The last row draws ToRGB alone.
    every = tuple(range(num_rows(model.style_layers) - 1))
    chosen = parse_rows(rows) if rows else every
    return _written(Path(out), training.sefa_directions(model, rows=chosen, count=count))


def write_ganspace(
    weights: str | Path,
    out: str | Path,
    *,
    count: int = 20,
    num_samples: int = 100_000,
    batch_size: int = 64,
    seed: int = 0,
) -> list[Direction]:
    """Writes NAME.npz of the principal components of many w (GANSpace).

    Args:
      weights: name or directory of weights with a generator.
      out: folder, made where missing.
      count: how many.
      num_samples, batch_size, seed: of the random samples.

    Raises:
      InputError: more components than w has.
    """
    model: Model = load(weights)
    found = training.ganspace_directions(
        jax.random.key(seed), model, num_samples=num_samples, count=count, batch_size=batch_size
    )
    return _written(Path(out), found)


def _conditions(
    attributes: Sequence[str], given: Mapping[str, Sequence[str]], scored: Sequence[str]
) -> dict[str, list[str]]:
    """What each direction leaves alone: what is given for it, and of `scored` all but its own."""
    found = {name: list(others) for name, others in given.items()}
    for name in attributes if scored else ():
        # Kinds of one attribute rule each other out.
        own = name.partition("=")[0]
        others = [x for x in scored if x.partition("=")[0] != own]
        found[name] = list(dict.fromkeys([*found.get(name, []), *others]))
    return found


def _save(folder: Path, directions: Sequence[Direction]) -> None:
    for direction in directions:
        save_direction(folder / f"{direction.name}.npz", direction)


def _written(out: Path, directions: list[Direction]) -> list[Direction]:
    with output_folder(out) as folder:
        _save(folder, directions)
    return directions
