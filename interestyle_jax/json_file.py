"""JSON that users and earlier runs left, which may be damaged in any way."""

import json
from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError


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
