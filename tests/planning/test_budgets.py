"""What the compilers of accelerators say of our programs stays within budgets.json."""

import json

import pytest

from tests.planning.record_budgets import BUDGETS, broken, measure, missing_compiler

PROGRAMS = json.loads(BUDGETS.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_keeps_its_budget(name):
    program = PROGRAMS[name]
    reason = missing_compiler(program["target"])
    if reason is not None:
        pytest.skip(reason)
    risen = broken(program["figures"], measure(program["target"], program["options"]))
    assert not risen, "\n".join(
        [f"{name} for {program['target']} needs more than budgets.json allows it:", *risen]
        + ["where that is meant: python -m tests.planning.record_budgets " + name]
    )


def test_budgets_break_where_a_figure_rises():
    budget = {"collectives": 20, "maps with zeros inserted": 0}
    assert broken(budget, {"collectives": 21, "maps with zeros inserted": 0}) == []
    assert broken(budget, {"collectives": 22, "maps with zeros inserted": 1}) == [
        "collectives: 22, the budget is 20 + 5%",
        "maps with zeros inserted: 1, the budget is 0 + 5%",
    ]
    # A library call that was not there before.
    assert broken(budget, {"library calls convForward": 3}) == [
        "library calls convForward: 3, the budget is 0 + 5%"
    ]


def test_the_budget_allows_no_up_convolution_over_zeros():
    """A training has such maps besides, in the gradients of strided slices."""
    figures = PROGRAMS["h100_inversion"]["figures"]
    # Six in each of two syntheses: of the mean latent, and of the one iteration.
    assert figures["up-convolutions convBackwardInput"] == 12
    assert figures["maps with zeros inserted"] == 0
