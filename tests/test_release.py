"""What a release carries beside the code: citation, workflow, issue templates, model cards."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import interestyle_jax
from experiments import model_cards
from interestyle_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"


def read_yaml(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_citation_names_this_version_and_the_papers_entry_of_the_readme():
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == interestyle_jax.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    paper = citation["preferred-citation"]
    entry = (ROOT / "README.md").read_text().partition("@inproceedings")[2]
    for field, value in {
        "title": paper["title"],
        "author": " and ".join(
            f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]
        ),
        "booktitle": paper["collection-title"],
        "year": paper["year"],
    }.items():
        assert re.search(rf"{field}\s*= \{{{re.escape(str(value))}\}}", entry), field


def test_workflow_runs_what_is_here_on_all_supported_pythons():
    text = (GITHUB / "workflows" / "ci.yml").read_text()
    jobs = read_yaml(GITHUB / "workflows" / "ci.yml")["jobs"]
    pythons = jobs["tests"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={pythons[0]}"
    assert pythons == ["3.11", "3.12", "3.13"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    scripts = re.findall(r"launch/\w+\.sh(?= |$)", "\n".join(commands), re.MULTILINE)
    assert {"launch/test.sh", "launch/docs.sh"} <= set(scripts)
    assert all((ROOT / script).is_file() for script in scripts)
    assert "interestyle invert --weights=avatar_interestyle" in text
    # The linters are those of the whole check.
    check = (ROOT / ".ci" / "run").read_text()
    for command in jobs["checks"]["steps"]:
        words = command.get("run", "").split()
        if words and words[0] != "pip":
            assert " ".join(words[1:]) in check and words[0] in check


@pytest.mark.parametrize("name", ["bug", "checkpoint", "feature"])
def test_issue_templates_are_forms(name):
    form = read_yaml(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert form["name"] and form["description"] and form["labels"]
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers)
    for field in form["body"]:
        assert field["type"] in ("textarea", "input") and field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


@pytest.mark.parametrize("name", sorted(path.stem for path in model_cards.CARDS.glob("[a-z]*.md")))
def test_model_card_has_the_assets_facts(name):
    card = (model_cards.CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert card == model_cards.with_facts(card, name), "run: python -m experiments.model_cards"
    for word in ("**For**", "imits**", "**Licence**"):
        assert word in card
    assert f"({name}.md)" in (model_cards.CARDS / "README.md").read_text(encoding="utf-8")


def test_every_asset_has_a_card(tmp_path):
    names = sorted(path.name for path in model_cards.ASSETS.iterdir() if path.is_dir())
    assert names == sorted(path.stem for path in model_cards.CARDS.glob("[a-z]*.md"))
    (tmp_path / "lpips_alex.md").write_text("\n".join(model_cards.MARKS))
    with pytest.raises(InputError, match="cards of lpips_alex, assets avatar_attributes, "):
        model_cards.write_cards(tmp_path)
    with pytest.raises(InputError, match=r"clip\.md: lacks the marks"):
        model_cards.with_facts("no marks", "clip")


def test_facts_are_the_metadatas():
    card = model_cards.facts(model_cards.ASSETS / "avatar_interestyle")
    assert f"BackboneEncoder({'num_styles=10'}" in card
    assert "method.num_iterations = " in card and "`interestyle train --config=" in card
    # Nothing of the machine it was trained on.
    assert "data.dir" not in card and "/work" not in card and "workdir" not in card
