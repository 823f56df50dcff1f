"""Directions by name or file: our own, and the formats of other projects.

Nothing in a file is run: PyTorch files and pickles go through the converter's restricted reader.
What the formats are is told in docs/editing.md; facts from the projects' code, no code of theirs.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from interestyle_jax import weights
from interestyle_jax.editing.directions import (
    ENDING,
    Direction,
    load_direction,
)
from interestyle_jax.editing.edits import num_rows
from interestyle_jax.editing.style_space import flat_index, num_channels
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.json_file import parse_json
from interestyle_jax.models.stylegan2 import StyleLayer
from interestyle_jax.weights import ASSETS

SHIPPED = ASSETS / "directions"
# A component of a file that has several: "ffhq_pca.pt#46"; and a channel of S: "channel:12,479".
_COMPONENT = re.compile(r"(.+)#(\d+)")
_CHANNEL = re.compile(r"channel:(\d+),(\d+)")
GANSPACE = ("mean", "comp", "std")
# How far rows of a "w" direction that is stored once a row may differ.
_SAME = 1e-6
_UNIT_TOLERANCE = 1e-3


class Given(NamedTuple):
    """What `--direction` says.

    Attributes:
      name: a shipped direction's name, a file, a weight directory or a channel.
      strength: its own, or None.
    """

    name: str
    strength: float | None


def parse_direction(text: str) -> Given:
    """`NAME|FILE[#COMPONENT][:STRENGTH]`, e.g. "smile", "age.pt:3", "channel:12,479:-7".

    Raises:
      InputError: it is empty, or its strength is not finite.
    """
    head, colon, tail = text.rpartition(":")
    try:
        strength = float(tail) if colon else None
    except ValueError:
        strength = None
    if strength is None:
        head = text
    elif not np.isfinite(strength):
        raise InputError(f"--direction={text}: strength {strength}, expected a number")
    if not head:
        raise InputError(f"--direction={text}: expected NAME or FILE, then :STRENGTH")
    return Given(head, strength)


def find_direction(
    name_or_file: str | Path,
    layers: Sequence[StyleLayer],
    *,
    w_dim: int,
    generator: str | None = None,
) -> Direction:
    """A direction that fits a generator.

    Args:
      name_or_file: a file; a weight directory of the family `interfacegan`; "channel:LAYER,CHANNEL"
        in S; else the name of a direction that ships. "FILE#K" takes component K of GANSpace's.
      layers: the generator's `style_layers`.
      w_dim: width of its `w`.
      generator: its fingerprint, which directions with one must match; None compares none.

    Raises:
      InputError: no such file or name, a damaged or foreign file, or one that does not fit, with
        both sizes.
    """
    text = str(name_or_file)
    if match := _CHANNEL.fullmatch(text):
        direction = _channels(text, [(int(match[1]), int(match[2]), 1.0)], layers, source=text)
    else:
        direction = _find(text, layers, w_dim)
    direction.check_fits(layers, w_dim=w_dim, generator=generator, where=text)
    return direction


def shipped_directions() -> dict[str, Path]:
    """The directions that ship with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{ENDING}"))}


def _find(text: str, layers: Sequence[StyleLayer], w_dim: int) -> Direction:
    path, component = Path(text).expanduser(), None
    if not path.exists() and (match := _COMPONENT.fullmatch(text)):
        path, component = Path(match[1]).expanduser(), int(match[2])
    if path.is_dir():
        return _from_weights(path, layers, w_dim)
    if path.is_file():
        return _read(path, component, layers, w_dim)
    shipped = shipped_directions()
    if text in shipped:
        return load_direction(shipped[text])
    names = ", ".join(shipped) or "none"
    raise InputError(
        f"{text}: no such file, and no direction of that name ships (shipped: {names})"
    )


def _read(path: Path, component: int | None, layers: Sequence[StyleLayer], w_dim: int) -> Direction:
    if path.suffix in (".csv", ".txt", ".json"):
        _refuse_component(path, component)
        return _channels(path.stem, _channel_list(path), layers, source=path.name, where=path)
    if path.suffix == ENDING:
        _refuse_component(path, component)
        return load_direction(path)
    # Torch is imported for PyTorch's files alone.
    from interestyle_jax.convert_weights.source_file import BARE, read_source

    content = read_source(path).content
    if GANSPACE[1] in content:
        return _ganspace(path, content, component, w_dim)
    _refuse_component(path, component)
    array = content.get(BARE)
    if not isinstance(array, np.ndarray):
        # idinvert pickles {"boundary": ..., ...}; their StyleGAN has another latent space.
        boundary = content.get("boundary")
        what = (
            "a StyleGAN1 boundary, as of idinvert and InterFaceGAN, which does not fit StyleGAN2"
            if isinstance(boundary, np.ndarray)
            else f"a dict of {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
        )
        raise InputError(f"{path}: holds {what}; expected one array")
    return _from_array(path, array, layers, w_dim)


def _from_array(
    path: Path, array: np.ndarray, layers: Sequence[StyleLayer], w_dim: int
) -> Direction:
    """InterFaceGAN's and e4e's [1, D], [L, D] and [1, L, D]; SFE's [1, L D]; flat styles [1, C]."""
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise InputError(f"{path}: {array.dtype} {list(array.shape)}, expected floats")
    length, channels = num_rows(layers), num_channels(layers)
    plain = array.astype(np.float32)
    while plain.ndim > 1 and plain.shape[0] == 1:
        plain = plain[0]
    if plain.ndim == 1 and len(plain) == length * w_dim and len(plain) != channels:
        plain = plain.reshape(length, w_dim)
    if plain.ndim == 2 and plain.shape == (length, w_dim):
        kind = "w_plus"
        # Files of generators-with-stylegan2 repeat one row.
        if np.abs(plain - plain[0]).max() <= _SAME * np.abs(plain).max():
            kind, plain = "w", plain[0]
    elif plain.ndim == 1:
        kind = "style" if len(plain) == channels != w_dim else "w"
    else:
        kind = "w_plus"
    if plain.ndim > 2 or plain.shape not in ((w_dim,), (length, w_dim), (channels,)):
        raise InputError(
            f"{path}: an array of shape {list(array.shape)}, but this generator takes directions "
            f"[1, {w_dim}], [{length}, {w_dim}], [1, {length * w_dim}] or, in S, [1, {channels}]"
        )
    lengths = np.linalg.norm(plain.astype(np.float64), axis=-1)
    is_unit = bool(np.all(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
    return Direction(
        _name(path), kind, plain, unit="length" if is_unit else "raw", source=path.name
    )


def _ganspace(path: Path, content: dict[str, Any], component: int | None, w_dim: int) -> Direction:
    """GANSpace's dictionary, as e4e has it: mean [1, D], comp [K, 1, D], std [K]."""
    parts = [content.get(name) for name in GANSPACE]
    if not all(isinstance(part, np.ndarray) and part.dtype.kind == "f" for part in parts):
        raise InputError(f"{path}: expected arrays {', '.join(GANSPACE)}, as of GANSpace")
    mean, comp, std = (np.asarray(part, np.float32) for part in parts)
    count = len(std.reshape(-1))
    if mean.size != w_dim or comp.size != count * w_dim:
        raise InputError(
            f"{path}: GANSpace components of shape {list(comp.shape)}, mean {list(mean.shape)}, "
            f"but this generator has a w of {w_dim}"
        )
    if component is None:
        raise InputError(f"{path}: holds {count} components, name one as {path}#0")
    if component >= count:
        raise InputError(f"{path}: component {component}, expected 0 to {count - 1}")
    return Direction(
        f"{_name(path)}#{component}",
        "w",
        comp.reshape(count, w_dim)[component] * std.reshape(-1)[component],
        unit="std",
        source=f"{path.name}, component {component}",
        origin=mean.reshape(w_dim),
    )


def _from_weights(path: Path, layers: Sequence[StyleLayer], w_dim: int) -> Direction:
    """What `interestyle convert` makes of InterFaceGAN's files."""
    found = weights.load_weights(path).variables.get("direction")
    if not isinstance(found, np.ndarray):
        raise InputError(f"{path}: no direction in these weights")
    return _from_array(path, found, layers, w_dim)


def _channel_list(path: Path) -> list[tuple[int, int, float]]:
    """Channels of StyleSpace, (layer, channel[, weight]) a line or a JSON list each."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            lines = parse_json(text)
        else:
            kept = (line for line in text.splitlines() if line.strip() and line.strip()[0] != "#")
            lines = list(csv.reader(kept))
    except Exception as error:
        raise file_error(error, f"{path}: not a readable list of channels") from error
    if not isinstance(lines, list) or not lines:
        raise InputError(f"{path}: holds no channels, expected LAYER,CHANNEL[,WEIGHT] a line")
    channels = []
    for i, line in enumerate(lines):
        try:
            layer, channel, *weight = line
            if len(weight) > 1 or isinstance(layer, float) or isinstance(channel, float):
                raise ValueError
            channels.append((int(layer), int(channel), float(weight[0]) if weight else 1.0))
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: entry {i + 1} is {line!r}, expected LAYER,CHANNEL[,WEIGHT]"
            ) from None
    return channels


def _channels(
    name: str,
    channels: Sequence[tuple[int, int, float]],
    layers: Sequence[StyleLayer],
    *,
    source: str,
    where: str | Path = "",
) -> Direction:
    """A direction of single channels of S, layers numbered with ToRGB counted (0 to 25 at 1024)."""
    array = np.zeros(num_channels(layers), np.float32)
    for layer, channel, weight in channels:
        try:
            array[flat_index(layers, layer, channel)] += weight
        except InputError as error:
            raise InputError(f"{where or name}: {error}") from error
    return Direction(name.replace(":", " "), "style", array, unit="raw", source=source)


def _refuse_component(path: Path, component: int | None) -> None:
    if component is not None:
        raise InputError(f"{path}: holds one direction, no component {component}")


def _name(path: Path) -> str:
    """A file's name, without what a direction's name may not hold."""
    return re.sub(r"[:/\\\n\0]", "_", path.stem) or "direction"
