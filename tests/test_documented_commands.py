"""Command lines in documents and docstrings: commands, scripts' options and fields exist."""

import argparse
import re

import pytest

from interestyle_jax.cli import build_parser
from interestyle_jax.config.files import read_config
from interestyle_jax.errors import InputError
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
    lines += re.findall(r"`(interestyle [a-z][^`]*)`", joined)
    # What the launch scripts run.
    lines += re.findall(r"^\s*(?:bash|sbatch) .* -- ([a-z].*)$", joined, re.MULTILINE)
    return [line.removeprefix("interestyle ") for line in lines]


def script_lines(text: str) -> list[tuple[str, str]]:
    """(script, its options) of every line that calls a launch script."""
    joined = re.sub(r"\\\n\s*", " ", text)
    calls = re.findall(r"(launch/[\w/]+\.(?:sh|sbatch)) (.*)$", joined, re.MULTILINE)
    return [call for call in calls if call[0] != "launch/test.sh"]


def wrong_script_options(script: str, options: str) -> list[str]:
    """Options that a script's text does not have, and config fields that do not exist."""
    source = (ROOT / script).read_text()
    words = options.partition(" #")[0].partition(" -- ")[0].partition("`")[0].split()
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    fields = {f"--config.{field}" for field in FIELDS}
    return [name for name in names if name not in fields and name not in source]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Its options, with those of its sub-commands."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options = options.union(*map(options_of, action.choices.values()))
    return options


def wrong_words(line: str) -> list[str]:
    """An unknown command, or options and config fields that it does not have."""
    words = line.partition(" #")[0].split()
    if words[0] not in COMMANDS:
        return [words[0]]
    known = options_of(COMMANDS[words[0]])
    if words[0] in ("train", "plan"):
        known |= {f"--config.{field}" for field in FIELDS} | {"--config.field"}
    options = [word.partition("=")[0].rstrip(".,;:)") for word in words if word.startswith("--")]
    return [option for option in options if option not in known]


def wrong_configs(text: str) -> list[str]:
    """Configs with an argument, as `configs/demo.py:smoke`, that cannot be read."""
    wrong = []
    for name in sorted(set(re.findall(r"configs/\w+\.py:[a-z][\w,]*", text))):
        try:
            read_config(str(ROOT / name))
        except InputError:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("source", TEXTS)
def test_documented_command_exists(source):
    text = prose(ROOT / source)
    wrong = {line: wrong_words(line) for line in command_lines(text)}
    wrong |= {call: wrong_script_options(*call) for call in script_lines(text)}
    assert {line: words for line, words in wrong.items() if words} == {}
    assert wrong_configs(text) == []


def test_wrong_commands_are_found():
    text = "    interestyle trian --x\n`interestyle invert --weights=a \\\n   --shards=1`"
    assert [wrong_words(line) for line in command_lines(text)] == [["trian"], ["--shards"]]
    line = "train --config=a.py --config.batch_sise=3 --config.batch_size=3"
    assert wrong_words(line) == ["--config.batch_sise"]
    (call,) = script_lines(
        "bash launch/gpu_node.sh --workdir=a --sedd=1 --config.seed=1 -- invert --x"
    )
    assert wrong_script_options(*call) == ["--sedd"]
    assert wrong_configs("`configs/demo.py:smok`, configs/demo.py:smoke") == [
        "configs/demo.py:smok"
    ]
