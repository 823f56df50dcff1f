"""Command lines of `interestyle` in documents and docstrings: the command and options exist."""

import argparse
import re

import pytest

from interestyle_jax.cli import build_parser
from tests.test_links import FIELDS, PAGES, ROOT, SOURCES, prose

(COMMANDS,) = (
    action.choices
    for action in build_parser()._actions
    if isinstance(action, argparse._SubParsersAction)
)
TEXTS = [*PAGES, *(s for s in SOURCES if s.endswith((".py", ".sh")) and not s.startswith("tests/"))]


def command_lines(text: str) -> list[str]:
    """Lines of code that begin with `interestyle`, or quote it; continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^\s*(?:time |srun \S+ )?(interestyle [a-z].*)$", joined, re.MULTILINE)
    return lines + re.findall(r"`(interestyle [a-z][^`]*)`", joined)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Its options, with those of its sub-commands."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options = options.union(*map(options_of, action.choices.values()))
    return options


def wrong_words(line: str) -> list[str]:
    """An unknown command, or options and config fields that it does not have."""
    words = line.partition(" #")[0].split()[1:]
    if words[0] not in COMMANDS:
        return [words[0]]
    known = options_of(COMMANDS[words[0]])
    if words[0] == "train":
        known |= {f"--config.{field}" for field in FIELDS} | {"--config.field"}
    options = [word.partition("=")[0].rstrip(".,;:)") for word in words if word.startswith("--")]
    return [option for option in options if option not in known]


@pytest.mark.parametrize("source", TEXTS)
def test_documented_command_exists(source):
    lines = command_lines(prose(ROOT / source))
    assert {line: wrong for line in lines if (wrong := wrong_words(line))} == {}


def test_wrong_commands_are_found():
    text = "    interestyle trian --x\n`interestyle invert --weights=a \\\n   --shards=1`"
    assert [wrong_words(line) for line in command_lines(text)] == [["trian"], ["--shards"]]
    line = "interestyle train --config=a.py --config.batch_sise=3 --config.batch_size=3"
    assert wrong_words(line) == ["--config.batch_sise"]
