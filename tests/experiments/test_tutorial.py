"""docs/tutorial.ipynb is what its cells say, and runs."""

import json

import nbformat
import pytest

from experiments import tutorial


def outputs_of(notebook) -> list:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def check_outputs(notebook) -> None:
    """Every cell that shows images has some, no cell failed, and nothing names this machine."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["execution_count"]
            images = [o for o in cell["outputs"] if "image/jpeg" in o.get("data", {})]
            shows = "show(" in "".join(cell["source"]).replace("def show(", "")
            assert bool(images) == shows
    kinds = {output["output_type"] for output in outputs_of(notebook)}
    assert kinds == {"stream", "display_data"}
    streams = [output["name"] for output in outputs_of(notebook) if "name" in output]
    assert set(streams) == {"stdout"}
    assert str(tutorial.ROOT) not in json.dumps(notebook)


def test_notebook_has_these_cells_and_their_outputs():
    text = tutorial.NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 700_000
    nbformat.validate(nbformat.reads(text, as_version=4))
    notebook = json.loads(text)
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    wanted = tutorial.read_cells(tutorial.CELLS.read_text(encoding="utf-8"))
    assert found == wanted, "run: python -m experiments.tutorial"
    check_outputs(notebook)


def test_cells_of_the_percent_format():
    text = '"""Of the file."""\n# %% [markdown]\n# # Title\n#\n# text\n\n'
    text += "# %%\na = 1\n\n\n# a comment\n"
    assert tutorial.read_cells(text) == [
        ("markdown", "# Title\n\ntext"),
        ("code", "a = 1\n\n\n# a comment"),
    ]


@pytest.mark.slow
def test_notebook_runs(monkeypatch):
    # Of the tests alone: it slows what runs by far.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tutorial.ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = json.loads(nbformat.writes(tutorial.run_notebook()))
    check_outputs(notebook)
    printed = "".join("".join(o["text"]) for o in outputs_of(notebook) if "text" in o)
    assert "w_plus (5, 6, 10, 512) images (5, 6, 64, 64, 3)" in printed
