"""Options of image jobs and of directions are the parameters of the work, one to one."""

import argparse
import inspect

import pytest

from interestyle_jax.cli import build_parser
from interestyle_jax.commands import masks as masks_command
from interestyle_jax.editing import direction_making as making
from interestyle_jax.jobs.alignments import align_files
from interestyle_jax.jobs.evaluations import evaluate
from interestyle_jax.jobs.job import RunOptions
from interestyle_jax.jobs.masks import write_masks
from interestyle_jax.jobs.mixes import mix_files

PHOTOGRAPHS = {"align", "landmarks", "dlib_file"}


def choices(parser):
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def destinations(parser):
    return {action.dest for action in parser._actions} - {"help", *RunOptions.__annotations__}


def parameters(work):
    return set(inspect.signature(work).parameters) - {"run"}


@pytest.mark.parametrize(
    ("command", "work", "instead"),
    [
        ("align", align_files, {}),
        ("evaluate", evaluate, {}),
        ("masks", write_masks, {"options": masks_command._OPTIONS}),
        ("mix", mix_files, {"alignment": PHOTOGRAPHS}),
    ],
)
def test_options_are_parameters(command, work, instead):
    found = destinations(choices(build_parser())[command])
    for name, own in instead.items():
        assert set(own) <= found
        found = found - set(own) | {name}
    assert found == parameters(work)


def test_options_of_directions_are_parameters():
    kinds = choices(choices(build_parser())["directions"])
    assert destinations(kinds["sefa"]) == parameters(making.write_sefa)
    assert destinations(kinds["ganspace"]) == parameters(making.write_ganspace)
    trained = destinations(kinds["train"]) - {"condition"} | {"conditions", "on_all"}
    assert trained == parameters(making.write_trained)
