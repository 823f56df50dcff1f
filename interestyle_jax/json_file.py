"""JSON files: written whole, and read although they may be damaged in any way."""

import json
from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError
from interestyle_jax.whole_files import write_whole


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`, with ValueError for every failure.

    Python's reader raises RecursionError for brackets in thousands of brackets.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      InputError: it is damaged; names it.
      OSError: from reading it.
    """
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: is damaged, no JSON ({error})") from error


def as_json(content: Any) -> str:
    """The text of a JSON file; launch scripts look for a run's status at its line's start."""
    return f"{json.dumps(content, indent=1)}\n"


def plain(content: Any) -> Any:
    """The content as JSON gives it back; what JSON does not know, such as paths, as text."""
    return json.loads(json.dumps(content, default=str))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
      InputError: it may not be written.
      MachineError: the disk is full or fails.
    """
    write_whole(path, as_json(content).encode())
