"""Writes the facts of the model cards in docs/model_cards from what the assets say of themselves.

    python -m experiments.model_cards

Each card's words are written by hand; the part between its two marks is replaced. To be run when a
shipped asset changes.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from interestyle_jax.commands.options import Parser
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.models import registry
from interestyle_jax.weights import ASSETS, METADATA, digest
from interestyle_jax.whole_files import write_whole

CARDS = Path(__file__).resolve().parents[1] / "docs" / "model_cards"
MARKS = ("<!-- facts: python -m experiments.model_cards -->", "<!-- end of facts -->")
# Of the machine it was trained on.
LEFT_OUT = ("data.dir",)


def write_cards(cards: Path = CARDS) -> list[str]:
    """Replaces the facts of every card NAME.md of asset NAME; returns the names.

    Raises:
      InputError: an asset has no card, or a card no asset or no marks.
    """
    assets = sorted(path.name for path in ASSETS.iterdir() if path.is_dir())
    found = sorted(path.stem for path in cards.glob("*.md") if path.stem != "README")
    if assets != found:
        raise InputError(f"{cards}: cards of {', '.join(found)}, assets {', '.join(assets)}")
    for name in assets:
        path = cards / f"{name}.md"
        write_whole(path, with_facts(path.read_text("utf-8"), name).encode())
    return assets


def with_facts(card: str, name: str) -> str:
    """A card's text with the facts of asset `name`; raises InputError where its marks are not."""
    pattern = re.compile(f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}", re.DOTALL)
    text = f"{MARKS[0]}\n\n{facts(ASSETS / name)}\n\n{MARKS[1]}"
    card, count = pattern.subn(lambda _: text, card)
    if count != 1:
        raise InputError(f"{name}.md: lacks the marks {' and '.join(MARKS)}")
    return card


def facts(asset: Path) -> str:
    """What an asset's files and metadata say, as Markdown."""
    if not (asset / METADATA).is_file():
        return _table(
            ("file", "bytes", "SHA-256"),
            [
                (f"`{path.name}`", f"{path.stat().st_size:,}", f"`{_sha256(path)}`")
                for path in sorted(asset.iterdir())
            ],
        )
    metadata = json.loads((asset / METADATA).read_text("utf-8"))
    size = sum(path.stat().st_size for path in asset.rglob("*") if path.is_file())
    rows = [
        ("family", metadata["family"]),
        ("digest", f"`{digest(asset)}`"),
        ("size", f"{size:,} bytes, stored as {metadata['storage_dtype']}"),
        *(_network(part, a) for part, a in metadata["architectures"].items()),
        ("licence", metadata["licence"]),
    ]
    if metadata["source"]:
        source = metadata["source"]
        rows.append(("converted from", f"`{source['file']}`, SHA-256 `{source['sha256']}`"))
    made_with = metadata["extra"].get("made_with", {})
    rows += [(f"made with {name}", str(value)) for name, value in made_with.items()]
    training = metadata["extra"].get("training", {})
    if training:
        rows += _training(training)
    text = _table(("", ""), rows)
    if training:
        fields = "\n".join(_fields(training["config"]))
        text += f"\n\nConfig of the training:\n\n```\n{fields}\n```"
    return text


def _training(training: dict[str, Any]) -> list[tuple[str, str]]:
    config = training["config"]
    images = training["step"] * config["batch_size"]
    (file,) = [word for word in training["command"] if word.startswith("--config=")]
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    rows = [
        ("trained", f"{training['step']:,} steps of {config['batch_size']} images ({images:,})"),
        ("by", f"`interestyle train {file}`"),
        ("commit", f"`{training['git_commit']}`"),
        ("versions", versions),
    ]
    if training["validation_loss"] is not None:
        rows.append(("validation loss", f"{training['validation_loss']:.4f}"))
    return rows


def _network(part: str, architecture: dict[str, Any]) -> tuple[str, str]:
    leaves = jax.tree.leaves(registry.variable_shapes(architecture))
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    fields = ", ".join(f"{k}={v}" for k, v in architecture.items() if k != "type")
    return part, f"{architecture['type']}({fields}), {count:,} numbers"


def _fields(config: dict[str, Any], before: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in config.items():
        name = before + key
        if isinstance(value, dict):
            lines += _fields(value, f"{name}.")
        elif name not in LEFT_OUT:
            lines.append(f"{name} = {json.dumps(value)}")
    return lines


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""

    def work() -> None:
        Parser(description=__doc__.split("\n")[0]).parse_args(argv)
        print(f"{CARDS}: {', '.join(write_cards())}")

    return run_command(work, program="model_cards")


if __name__ == "__main__":
    sys.exit(main())
