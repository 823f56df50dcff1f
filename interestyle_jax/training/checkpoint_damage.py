"""What proves a checkpoint damaged: the digests saved with it, or Orbax's own reading of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interestyle_jax import weight_files
from interestyle_jax.errors import InputError, file_error, is_machine_failure, reason
from interestyle_jax.json_file import parse_json, write_json

DIGESTS = "digests.json"
# Written again when the step gets its name, or read by nobody.
_UNBOUND = frozenset({DIGESTS, "_CHECKPOINT_METADATA", "commit_success.txt"})
# With these codes TensorStore refuses what it has read; others mean that it could not read.
_REFUSALS = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT")


def write_digests(step: Path) -> None:
    """Writes `digests.json`: size and SHA-256 of every file of a checkpoint's directory."""
    found = weight_files.digests(step)
    bound = {name: entry for name, entry in found.items() if Path(name).name not in _UNBOUND}
    write_json(step / DIGESTS, bound)


def read_digests(step: Path) -> Mapping[str, Any] | None:
    """What `write_digests` wrote; None where there is none, as in checkpoints of older versions.

    Raises:
      InputError: it is damaged.
      OSError: it cannot be read.
    """
    try:
        found = parse_json((step / DIGESTS).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{step / DIGESTS}: not JSON: {reason(error)}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{step / DIGESTS}: not an object, expected digests")
    return found


def find_damage(step: Path, *, share: tuple[int, int] = (0, 1)) -> str | None:
    """What is damaged in a checkpoint's directory, in one line, or None.

    Args:
      step: the directory of a whole checkpoint.
      share: (i, n) looks at every n-th file, from the i-th: a process' share of the work. What has
        no digests is read by Orbax in share 0.

    Raises:
      OSError, MachineError: the machine failed, which says nothing about the checkpoint.
    """
    first, count = share
    try:
        digests = read_digests(step)
        if digests is not None:
            weight_files.check_files(step, dict(sorted(digests.items())[first::count]))
        elif first == 0:
            _read_all(step)
    except InputError as error:
        return str(error)
    return None


def _read_all(step: Path) -> None:
    """Reads a checkpoint on this process alone. Raises InputError where Orbax refuses it."""
    try:
        weight_files.read_tree(step / "state")
        for item in ("data", "meta"):
            parse_json((step / item / "metadata").read_bytes())
    except Exception as error:
        if is_machine_failure(error):
            raise file_error(error, f"{step}: cannot be read") from error
        if not _refuses(error):
            raise
        raise InputError(f"{step}: {reason(error.__cause__ or error)}") from error


def _refuses(error: BaseException) -> bool:
    """Whether the content is to blame: no JSON, a file gone, a checksum, an array cut off."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | FileNotFoundError):
        return True
    if isinstance(error, ValueError) and str(error).startswith(_REFUSALS):
        return True
    return error.__cause__ is not None and _refuses(error.__cause__)
