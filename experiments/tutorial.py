"""Makes docs/tutorial.ipynb from `tutorial_cells.py`, runs it, and keeps its outputs.

    python -m experiments.tutorial

Run it when its cells or the shipped weights change.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from interestyle_jax.commands.options import Parser
from interestyle_jax.exit_status import run_command
from interestyle_jax.whole_files import write_whole

ROOT = Path(__file__).resolve().parents[1]
CELLS = Path(__file__).with_name("tutorial_cells.py")
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
_MARK = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def read_cells(text: str) -> list[tuple[str, str]]:
    """The cells of a file in the percent format, ("code" or "markdown", source) each."""
    _, *parts = _MARK.split(text)
    cells = []
    for mark, part in zip(parts[::2], parts[1::2], strict=True):
        source = part.strip()
        if mark:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        cells.append(("markdown" if mark else "code", source))
    return cells


def run_notebook() -> nbformat.NotebookNode:
    """The notebook with its outputs; raises nbclient's error where a cell fails."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for i, (kind, source) in enumerate(read_cells(CELLS.read_text(encoding="utf-8"))):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        notebook.cells.append(make(source, id=f"cell-{i}"))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        # Times, which differ every time.
        cell.metadata.pop("execution", None)
    return notebook


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""

    def work() -> None:
        Parser(description=__doc__.split("\n")[0]).parse_args(argv)
        write_whole(NOTEBOOK, (nbformat.writes(run_notebook()) + "\n").encode())
        print(NOTEBOOK)

    return run_command(work, program="tutorial")


if __name__ == "__main__":
    sys.exit(main())
