"""What a script found, as its two files: the figures as JSON, and a table for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder


def write_report(
    out: Path, report: Mapping[str, Any], text: str, *, figures: str, table: str = "table.md"
) -> None:
    """Writes both files into a folder, together or not at all, and prints the table.

    Args:
      out: the folder, made where it is missing.
      report: as JSON.
      text: Markdown.
      figures: name of the file with `report`.
      table: name of the file with `text`.

    Raises:
      InputError: `out` is no folder.
      MachineError: the disk is full.
    """
    with output_folder(out) as folder:
        write_json(folder / figures, report)
        (folder / table).write_text(text, encoding="utf-8")
    print(text)
