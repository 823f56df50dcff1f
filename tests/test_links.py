"""What documents, docstrings and comments point to is there: files, sections, names of the code."""

import ast
import pkgutil
import re
import tokenize
from pathlib import Path

import pytest

from configs import own_domain
from interestyle_jax.config.files import field_names
from interestyle_jax.config.presets import (
    clip_config,
    encoder_config,
    generator_config,
    mapper_config,
)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "THIRD_PARTY.md"]
PAGES += sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))
FOLDERS = sorted(
    path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")
)
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("interestyle_jax", "tools", "configs", "experiments", "launch", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh", ".sbatch")
)
PACKAGE = {module.name for module in pkgutil.iter_modules([str(ROOT / "interestyle_jax")])}
CONFIGS = (
    *(encoder_config(), generator_config(), clip_config(), mapper_config()),
    own_domain.get_config("interestyle"),
)
FIELDS = {field for config in CONFIGS for field in field_names(config)}
# Modules of libraries, as prose calls them.
LIBRARIES = {"argparse", "dataclasses", "flax", "jax", "nn", "np", "numpy", "torch"}
# Of a user's own files: what a command writes, and any file or field.
PLACEHOLDER = re.compile(r"NAME|DIR|^table.md$|^config.field$")


def prose(path: Path) -> str:
    """Docstrings and comments of a Python file, or the whole of another."""
    if path.suffix != ".py":
        return path.read_text()
    with tokenize.open(path) as file:
        texts = [
            t.string for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT
        ]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, documented)]
    return "\n".join([*texts, *(ast.get_docstring(node) or "" for node in nodes)])


def missing_files(text: str, folder: Path = ROOT) -> list[str]:
    """Named paths of this repository's folders, and documents, that are not there.

    Documents may be named from `folder` on.
    """
    paths = re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text)
    documents = re.findall(r"(?<![\w./-])[\w./-]*\w\.md\b", text)
    names = {name for name in (*paths, *documents) if not PLACEHOLDER.search(name)}
    # Files of a package may be named without `interestyle_jax/`.
    short = set(
        re.findall(rf"(?<![\w./-])(?<!official `)(?:{'|'.join(PACKAGE)})/[\w/]*\w\.py\b", text)
    )
    dead = {n for n in names if not (ROOT / n).exists() and not (folder / n).exists()}
    return sorted(dead | {n for n in short if not (ROOT / "interestyle_jax" / n).exists()})


def resolves(name: str, package: str) -> bool:
    """Whether a dotted name of ours, seen in `package`, is a module, one's attribute or a field."""
    if name in FIELDS or name.removeprefix("config.") in FIELDS:
        return True
    for full in (name, f"interestyle_jax.{name}", f"{package}.{name}"):
        try:
            pkgutil.resolve_name(full)
            return True
        except (ImportError, AttributeError):
            pass
    return False


def dead_names(text: str, package: str, siblings: set[str]) -> list[str]:
    """Dotted names in backticks that begin as ours do and lead nowhere."""
    ours = {"interestyle_jax", "tools", "experiments", "config", *PACKAGE, *siblings}
    names = re.findall(r"`(?:--)?([a-z_]\w*(?:\.\w+)+)(?=[`(=])", text)
    names += re.findall(r"python -m ([\w.]*\w)", text)
    for module, imported in re.findall(r"^from (\S+) import (.*)$", text, re.MULTILINE):
        names += [f"{module}.{name.strip()}" for name in imported.split(",")]
    files = re.compile(r"\.(py|json|jsonl|npz|png|md|pt|pth|toml)$")
    names = [n for n in names if n.partition(".")[0] in ours and not files.search(n)]
    names = {name for name in names if not PLACEHOLDER.search(name)}
    dead = {name for name in names if not resolves(name, package)}
    # A class of a renamed module: its first name is neither ours nor a library's.
    classes = re.findall(r"`([a-z]\w*)((?:\.[a-z]\w*)*\.[A-Z]\w*[a-z]\w*)[`(]", text)
    return sorted(dead | {a + b for a, b in classes if a not in ours | LIBRARIES})


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_pages_lead_somewhere(page):
    text, here = (ROOT / page).read_text(), (ROOT / page).parent
    # The table of renamed things: old names are gone.
    text = re.sub(r"^\| [^|]*\|", "|", text, flags=re.MULTILINE) if "| old |" in text else text
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        link = "".join(link)
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = here / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    dead += missing_files(re.sub(r"\]\([^)]*\)", "", text), here)
    assert dead + dead_names(text, "interestyle_jax", set()) == []


def dead_links(source: str) -> list[str]:
    """What a source file's prose names that is not there."""
    path = ROOT / source
    text = prose(path)
    dead = missing_files(text)
    if source.startswith("tests/"):
        # The official code's numbers, which lie beside the repository.
        dead = [name for name in dead if not name.startswith("golden/")]
        golden = re.findall(r"(?<![\w./-])golden/[\w./-]*\w\.\w+", text)
        golden = [name for name in golden if not PLACEHOLDER.search(name)]
        dead += [name for name in golden if SHARED.is_dir() and not (SHARED / name).exists()]
    package = ".".join(Path(source).parts[:-1])
    return dead + dead_names(text, package, {file.stem for file in path.parent.glob("*.py")})


def test_docstrings_and_comments_lead_somewhere():
    assert {source: dead for source in SOURCES if (dead := dead_links(source))} == {}


def test_dead_links_are_found():
    text = "`docs/none.md`, DESIGN.md §1, `config.presets.none`, `config.data.none`, tools/none, "
    text += "`gone.Class`, `models/none.py`, `python -m experiments.none`\n"
    text += "from interestyle_jax.jobs import none\n"
    assert missing_files(text) == ["DESIGN.md", "docs/none.md", "models/none.py", "tools/none"]
    dead = dead_names(text, "interestyle_jax", set())
    assert dead == [
        "config.data.none",
        "config.presets.none",
        "experiments.none",
        "gone.Class",
        "interestyle_jax.jobs.none",
    ]
