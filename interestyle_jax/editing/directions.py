"""Linear edits: a direction in W, W+ or S, its file, and the edit that it makes.

A direction is never scaled: strengths belong to the array as it stands, and its norm is recorded.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from interestyle_jax.editing.edits import Edit, check_rows, num_rows
from interestyle_jax.editing.style_space import num_channels, split_styles
from interestyle_jax.errors import InputError, file_error, reason
from interestyle_jax.json_file import parse_json
from interestyle_jax.models.stylegan2 import StyleLayer
from interestyle_jax.whole_files import whole_file

FORMAT = "interestyle_jax direction"
FORMAT_VERSION = 1
ENDING = ".npz"
KINDS = ("w", "w_plus", "style")
# What a strength of 1 is: the latent space's own distance (a unit vector), a standard deviation of
# what moves along the direction, or whatever the array's length makes of it.
UNITS = ("length", "std", "raw")
_SHAPES = {"w": "[D]", "w_plus": "[L, D]", "style": "[C]"}
_ARRAYS = ("array", "origin")
# A file's norm is written in decimals and summed in another order.
_NORM_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Direction:
    """A direction and what has to be known of it.

    Attributes:
      name: for labels, e.g. "smile".
      kind: "w" (the same for all rows), "w_plus" or "style".
      array: float32 [D], [L, D], or [C], all channels of S, ToRGB counted.
      rows: rows of `w_plus` that it is meant for; None: all. In S the layers that read them.
      unit: "length", "std" or "raw", what a strength of 1 is, see UNITS.
      source: where it comes from, in words: a file, a method.
      default_range: strengths from low to high in which it is known to work, or None.
      generator: fingerprint of the generator it was made for (`weights.generator_fingerprint`), or
        None where nothing is known.
      origin: float32 of the array's shape, from which coordinates are measured, or None for 0.
      extra: anything JSON-able worth keeping, as accuracies and scores.
    """

    name: str
    kind: str
    array: np.ndarray
    rows: tuple[int, ...] | None = None
    unit: str = "length"
    source: str = ""
    default_range: tuple[float, float] | None = None
    generator: str | None = None
    origin: np.ndarray | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raises InputError for fields that do not go together."""
        _check(self)

    @property
    def norm(self) -> float:
        """Euclidean length of the whole array."""
        return float(np.linalg.norm(np.asarray(self.array, np.float64)))

    def check_fits(
        self,
        layers: Sequence[StyleLayer],
        *,
        w_dim: int,
        generator: str | None = None,
        where: str | Path = "",
    ) -> None:
        """Raises InputError, which names both sizes, unless a generator can be edited by this.

        Args:
          layers: the generator's `style_layers`.
          w_dim: width of its `w`.
          generator: its fingerprint; None does not compare it.
          where: the file, for the message.
        """
        where = str(where or self.name)
        length = num_rows(layers)
        expected: tuple[int, ...] = {
            "w": (w_dim,),
            "w_plus": (length, w_dim),
            "style": (num_channels(layers),),
        }[self.kind]
        if self.array.shape != expected:
            raise InputError(
                f"{where}: a direction of kind {self.kind!r} and shape {list(self.array.shape)}, "
                f"but this generator takes {list(expected)} ({length} rows of {w_dim})"
            )
        if self.rows is not None:
            try:
                check_rows(self.rows, layers)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
        if generator is not None and self.generator not in (None, generator):
            raise InputError(
                f"{where}: was made for generator {self.generator}, these weights hold "
                f"{generator}; --other-generator takes it all the same"
            )

    def edit(
        self,
        layers: Sequence[StyleLayer],
        *,
        rows: Sequence[int] | None = None,
        absolute: bool = False,
    ) -> Edit:
        """The edit `latents + strength * array`.

        Args:
          layers: the generator's `style_layers`; see `check_fits`.
          rows: edit these rows of `w_plus` alone; None takes the direction's own.
          absolute: instead of a step, a strength is the coordinate to reach along the direction,
            in units of `array` from `origin`: latents + (strength - c) array. Of `w_plus` every row
            is measured by itself where the kind is "w".

        Raises:
          InputError: a row that the generator does not have, or coordinates in S.
        """
        if absolute and self.kind == "style":
            raise InputError(f"{self.name}: has no coordinates, it is a direction in S")
        if self.kind == "style":
            variables: Any = split_styles(jnp.asarray(self.array), layers)
            apply = _add_styles
        else:
            variables = {"array": jnp.asarray(self.array)}
            apply = _add
            if absolute:
                origin = np.zeros_like(self.array) if self.origin is None else self.origin
                variables["origin"] = jnp.asarray(origin)
                apply = _reach if self.kind == "w" else _reach_whole
        space = "style" if self.kind == "style" else "w_plus"
        edit = Edit(variables, apply, space, self.name, default_range=self.default_range)
        rows = self.rows if rows is None else rows
        return edit if rows is None else edit.on_rows(rows, layers)


def _add(variables, w_plus, strength):
    return w_plus + strength * variables["array"]


def _add_styles(variables, styles, strength):
    return tuple(s + strength * part for s, part in zip(styles, variables, strict=True))


def _reach(variables, w_plus, strength):
    """Every row to the coordinate `strength`."""
    array = variables["array"]
    coordinate = jnp.sum((w_plus - variables["origin"]) * array, -1, keepdims=True)
    return w_plus + (strength - coordinate / jnp.sum(array * array)) * array


def _reach_whole(variables, w_plus, strength):
    """The whole of `w_plus` to the coordinate `strength`."""
    array = variables["array"]
    coordinate = jnp.sum((w_plus - variables["origin"]) * array, (-2, -1), keepdims=True)
    return w_plus + (strength - coordinate / jnp.sum(array * array)) * array


def save_direction(path: str | Path, direction: Direction) -> Path:
    """Writes a direction as NAME.npz, whole or not at all: `array`, `origin`, `metadata` (JSON).

    Raises:
      InputError: the path does not end in .npz, or may not be written.
      MachineError: the disk is full or fails.
    """
    path = Path(path).expanduser()
    if path.suffix != ENDING:
        raise InputError(f"{path}: expected a name that ends in {ENDING}")
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": direction.name,
        "kind": direction.kind,
        "rows": None if direction.rows is None else list(direction.rows),
        "norm": direction.norm,
        "unit": direction.unit,
        "source": direction.source,
        "default_range": None if direction.default_range is None else [*direction.default_range],
        "generator": direction.generator,
        "extra": dict(direction.extra),
    }
    arrays: dict[str, Any] = {"array": direction.array, "metadata": np.array(json.dumps(metadata))}
    if direction.origin is not None:
        arrays["origin"] = direction.origin
    with whole_file(path) as file:
        np.savez(file, **arrays)
    return path


def load_direction(path: str | Path) -> Direction:
    """Reads what `save_direction` wrote; nothing in it is run or unpickled.

    Raises:
      InputError: missing, damaged or foreign file, or fields that do not go together.
    """
    path = Path(path).expanduser()
    try:
        # NumPy leaves a damaged file open that it has opened itself.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if "metadata" not in file.files or file["metadata"].dtype.kind != "U":
                raise InputError(f"{path}: no direction of this package, its .npz has no metadata")
            metadata = parse_json(str(file["metadata"][()]))
            arrays = {name: file[name] for name in _ARRAYS if name in file.files}
    except InputError:
        raise
    # NumPy and zipfile raise nearly anything where a file is damaged.
    except Exception as error:
        raise file_error(error, f"{path}: not a readable direction") from error
    try:
        return _from_file(metadata, arrays)
    except (InputError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise InputError(f"{path}: {reason(error)}") from error


def _from_file(metadata: Any, arrays: Mapping[str, np.ndarray]) -> Direction:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise InputError(f"not a direction (format {FORMAT!r})")
    if metadata.get("format_version") != FORMAT_VERSION:
        version = metadata.get("format_version")
        raise InputError(f"format_version is {version}, this version reads {FORMAT_VERSION}")
    if "array" not in arrays:
        raise InputError("has no array")
    rows, limits = metadata["rows"], metadata["default_range"]
    direction = Direction(
        name=metadata["name"],
        kind=metadata["kind"],
        array=arrays["array"],
        rows=None if rows is None else tuple(rows),
        unit=metadata["unit"],
        source=metadata["source"],
        default_range=None if limits is None else tuple(limits),
        generator=metadata["generator"],
        origin=arrays.get("origin"),
        extra=metadata.get("extra", {}),
    )
    norm = metadata["norm"]
    if not math.isclose(norm, direction.norm, rel_tol=_NORM_TOLERANCE):
        raise InputError(f"norm is {norm:g}, but that of its array {direction.norm:g}")
    return direction


def _check(direction: Direction) -> None:
    name = direction.name
    if not isinstance(name, str) or not name or set(name) & set(":/\\\0\n"):
        raise InputError(f"name: {name!r}, expected a word without ':' and '/'")
    if direction.kind not in KINDS:
        raise InputError(f"kind: {direction.kind!r}, expected one of {', '.join(KINDS)}")
    if direction.unit not in UNITS:
        raise InputError(f"unit: {direction.unit!r}, expected one of {', '.join(UNITS)}")
    for field in _ARRAYS:
        array = getattr(direction, field)
        if field == "origin" and array is None:
            continue
        shape = _SHAPES[direction.kind]
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or 0 in array.shape:
            raise InputError(f"{field}: expected floats {shape}")
        if array.ndim != (2 if direction.kind == "w_plus" else 1):
            raise InputError(f"{field}: shape {list(array.shape)}, expected {shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{field}: some values are not finite")
        object.__setattr__(direction, field, array.astype(np.float32))
    if direction.origin is not None and direction.origin.shape != direction.array.shape:
        shapes = f"{list(direction.origin.shape)} and {list(direction.array.shape)}"
        raise InputError(f"origin and array: shapes {shapes}, expected equal ones")
    if not direction.array.any():
        raise InputError("array: all zeros, it changes nothing")
    rows = direction.rows
    if rows is not None and not (rows and all(type(r) is int and r >= 0 for r in rows)):
        raise InputError(f"rows: {rows}, expected whole numbers from 0")
    limits = direction.default_range
    if limits is not None:
        if len(limits) != 2 or not all(type(x) in (int, float) for x in limits):
            raise InputError(f"default_range: {limits}, expected two numbers")
        if not (math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1]):
            raise InputError(f"default_range: {limits}, expected a low and a higher number")
    for field, value in (("source", direction.source), ("generator", direction.generator or "")):
        if not isinstance(value, str):
            raise InputError(f"{field}: {value!r}, expected text")
    if not isinstance(direction.extra, Mapping):
        raise InputError("extra: expected fields")
