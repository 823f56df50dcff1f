"""Weight directories: what passes between training runs, tools and users.

A weight directory holds `metadata.json` and `variables/`, an Orbax tree of arrays. Reading one
unpickles nothing and runs nothing that is in it.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from interestyle_jax import __version__, weight_files
from interestyle_jax.buckets import bucket_url, local_copy
from interestyle_jax.errors import InputError, file_error, reason
from interestyle_jax.json_file import parse_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.models import registry
from interestyle_jax.unfinished import unfinished_folder

FORMAT = "interestyle_jax weight directory"
FORMAT_VERSION = 1
METADATA = "metadata.json"
VARIABLES = "variables"
ASSETS = Path(__file__).resolve().parent / "assets"
STORAGE_DTYPES = ("float32", "float16", "bfloat16")
# The collection of running statistics, which keeps its own type.
STATISTICS = "batch_stats"
REQUIRED_KEYS = {
    "family": str,
    "architectures": dict,
    "licence": str,
    "storage_dtype": str,
    "files": dict,
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A weight directory in memory.

    Attributes:
      variables: {part: variables or array}, nested dicts of NumPy arrays.
      metadata: what `metadata.json` holds.
      directory: where it was read from.
    """

    variables: dict[str, Any]
    metadata: dict[str, Any]
    directory: Path

    def part(self, name: str, **compute: Any) -> tuple[registry.Module, dict[str, Any]]:
        """One network: its module and variables; `compute` as in `registry.build`.

        Raises:
          InputError: there is no such network here.
        """
        parts = self.metadata["architectures"]
        if name not in parts:
            raise InputError(
                f"{self.directory}: no {name} in these weights, they hold {', '.join(parts)}"
            )
        return registry.build(parts[name], **compute), self.variables[name]


def save_weights(
    directory: str | os.PathLike,
    variables: Mapping[str, Any],
    *,
    family: str,
    architectures: Mapping[str, Mapping[str, Any]],
    licence: str,
    source: Mapping[str, Any] | None = None,
    force: bool = False,
    dtype: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a weight directory in one move: it is there whole, or not at all.

    What a killed process left beside it is deleted.

    Args:
      directory: where to; its parents are made.
      variables: {part: variables or array}: nested dicts of arrays, fully addressable here.
      family: what the weights are, e.g. "stylegan2", "interestyle", "lpips_alex".
      architectures: {part: `registry.describe(module)`} for every part that is a network.
      licence: the licence of these weights, in words.
      source: {"file": name, "sha256": digest} of what they were converted from, or None.
      force: replace an existing weight directory.
      dtype: type in which floating-point arrays are stored ("float32", "float16", "bfloat16"),
        running statistics excepted, or None for each array's own.
      extra: anything JSON-able worth keeping, e.g. the training config and command.

    Returns:
      The directory.

    Raises:
      InputError: the directory exists (or, with `force`, is something else than a weight
        directory), the arrays do not fit their architecture, a value overflows `dtype`, or the
        directory may not be written.
      MachineError: the disk is full or fails.
    """
    directory = Path(directory).expanduser().absolute()
    check_destination(directory, force)
    tree = _storage_tree(variables, dtype, directory)
    _check_architectures(tree, architectures, directory)
    floats = {dtype} if dtype else _floats(tree)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "family": family,
        "architectures": {k: dict(v) for k, v in architectures.items()},
        "source": None if source is None else dict(source),
        "converter_version": __version__,
        "library_versions": library_versions(),
        "licence": licence,
        "storage_dtype": floats.pop() if len(floats) == 1 else "mixed",
        "extra": {} if extra is None else dict(extra),
    }
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(directory.parent, name=directory.name) as folder:
            metadata["files"] = weight_files.write_tree(folder / VARIABLES, tree)
            write_json(folder / METADATA, metadata)
            weight_files.move_into_place(folder, directory)
    # Orbax reports a full disk as ValueError, OSError or its own error, by the step it met it in.
    except Exception as error:
        raise file_error(error, f"{directory}: weights could not be written") from error
    return directory


def load_weights(directory: str | os.PathLike, *, dtype: Any = np.float32) -> Weights:
    """Reads a weight directory.

    Args:
      directory: as `save_weights` wrote it; a name needs `resolve_weights` first.
      dtype: type of the floating-point arrays returned, or None for the stored one.

    Returns:
      The variables as NumPy arrays, and the metadata.

    Raises:
      InputError: missing, unfinished, damaged or foreign directory, another format version, or
        arrays that do not fit the architecture.
      MachineError: the disk or the memory fails.
    """
    directory = Path(directory).expanduser().absolute()
    metadata = _read_metadata(directory)
    weight_files.check_files(directory / VARIABLES, metadata["files"])
    try:
        tree = weight_files.read_tree(directory / VARIABLES)
    except Exception as error:
        raise file_error(error, f"{directory / VARIABLES}: the arrays cannot be read") from error
    _check_architectures(tree, metadata["architectures"], directory)
    if dtype is not None:
        tree = jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )
    return Weights(tree, metadata, directory)


def resolve_weights(name_or_dir: str | os.PathLike) -> Path:
    """The directory that a name or path means: an existing directory, else a shipped asset.

    "gs://BUCKET/FOLDER", "s3://BUCKET/FOLDER" and "hf://OWNER/NAME[@REVISION]" are copied to this
    machine first, see `buckets.local_copy`.

    Raises:
      InputError: none of these; the message lists the shipped assets.
      MachineError: the network fails.
    """
    if url := bucket_url(name_or_dir):
        return local_copy(url)
    directory = Path(name_or_dir).expanduser()
    if directory.is_dir():
        return directory.absolute()
    assets = sorted(p.parent.name for p in ASSETS.glob(f"*/{METADATA}"))
    if str(name_or_dir) in assets:
        return ASSETS / str(name_or_dir)
    raise InputError(
        f"{name_or_dir}: no such weight directory, and no shipped weights of that name "
        f"(shipped: {', '.join(assets) or 'none'})"
    )


def _floats(tree: Any) -> set[str]:
    return {str(x.dtype) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


def _storage_tree(variables: Any, dtype: str | None, directory: Path) -> dict[str, Any]:
    """Nested plain dicts of NumPy arrays, floating-point ones in the storage type."""
    if dtype is not None and dtype not in STORAGE_DTYPES:
        raise InputError(f"dtype: {dtype!r}, expected one of {', '.join(STORAGE_DTYPES)}")

    def convert(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            return {k: convert(v, f"{path}/{k}" if path else k) for k, v in value.items()}
        array = np.asarray(value)
        # Statistics are few, and variances leave a half type's range before anything else does.
        is_statistic = f"/{STATISTICS}/" in f"/{path}"
        if dtype is None or is_statistic or not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        if array.dtype == jnp.dtype(dtype):
            # No copy where the array lies in order already: files of a gigabyte come through here.
            return np.ascontiguousarray(array).reshape(array.shape)
        largest = float(jnp.finfo(dtype).max)
        # NumPy warns where it compares small floats with a number that they cannot hold.
        may_overflow = float(jnp.finfo(array.dtype).max) > largest
        if may_overflow and np.any(np.isfinite(array) & (np.abs(array) > largest)):
            raise InputError(
                f"{directory}: {path} holds values above {largest:g}, the largest {dtype}; "
                "store it as float32"
            )
        return array.astype(jnp.dtype(dtype))

    return convert(variables, "")


def _check_architectures(
    tree: Mapping[str, Any], architectures: Mapping[str, Any], directory: Path
) -> None:
    """Raises InputError that lists every array missing, unknown or of another shape."""
    wrong = []
    for part, architecture in architectures.items():
        try:
            expected = flatten_dict({part: registry.variable_shapes(architecture)}, sep="/")
        # The fields are the file's: a network may fail on them in any way.
        except Exception as error:
            raise InputError(f"{directory}: architecture of {part}: {reason(error)}") from error
        found = flatten_dict({part: tree.get(part, {})}, sep="/")
        for path in sorted(expected.keys() | found.keys()):
            if path not in found:
                wrong.append(f"{path} is missing, expected {list(expected[path].shape)}")
            elif path not in expected:
                wrong.append(f"{path} {list(found[path].shape)} is not in the architecture")
            elif found[path].shape != expected[path].shape:
                wrong.append(
                    f"{path} is {list(found[path].shape)}, expected {list(expected[path].shape)}"
                )
    if wrong:
        raise InputError(
            f"{directory}: {len(wrong)} arrays do not fit the architecture: {'; '.join(wrong)}"
        )


def digest(name_or_dir: str | os.PathLike) -> str:
    """What tells weights apart, 16 digits: their metadata holds the digests of all their files.

    Raises:
      InputError: no such weight directory.
    """
    metadata = _read_metadata(resolve_weights(name_or_dir))
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16]


def generator_fingerprint(variables: Mapping[str, Any]) -> str:
    """What tells a generator apart in latents and directions, 16 digits.

    A digest of the synthesis parameters: a generator is the same in every weight directory that
    holds it with the same values, whatever its mapping network, stored noise or encoder; stored in
    another type, or trained on, it is another.

    Args:
      variables: {"params": ...} of a Generator.
    """
    digest = hashlib.sha256()
    params = flatten_dict(jax.device_get(dict(variables["params"])), sep="/")
    for path in sorted(params):
        if not path.startswith("mapping/"):
            array = np.ascontiguousarray(params[path], "<f4")
            digest.update(f"{path} {array.shape}\n".encode())
            digest.update(array.data)
    return digest.hexdigest()[:16]


def check_destination(directory: str | os.PathLike, force: bool) -> None:
    """Raises InputError where `save_weights` would refuse to write; lets tools ask first."""
    directory = Path(directory).expanduser()
    if not directory.exists():
        return
    if not force:
        raise InputError(f"{directory}: already exists, pass force (--force) to replace it")
    # Only a weight directory is ever deleted, so that a mistyped path costs nobody their files.
    if not (directory / METADATA).is_file() and any(directory.iterdir()):
        raise InputError(f"{directory}: exists and is no weight directory, will not replace it")


def _read_metadata(directory: Path) -> dict[str, Any]:
    path = directory / METADATA
    if not directory.is_dir():
        raise InputError(f"{directory}: no such weight directory")
    if not path.is_file():
        raise InputError(f"{path}: missing, {directory.name} is no weight directory")
    try:
        metadata = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        raise file_error(error, f"{path}: not readable as JSON") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise InputError(f"{path}: not the metadata of a weight directory (format {FORMAT!r})")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version is {version}, this version reads {FORMAT_VERSION}"
        )
    for key, kind in REQUIRED_KEYS.items():
        if not isinstance(metadata.get(key), kind):
            raise InputError(f"{path}: field {key} is missing or no {kind.__name__}")
    return metadata
