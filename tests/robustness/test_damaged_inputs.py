"""A fuzzer: seeded damage to every kind of input, through the commands, in this process.

    pytest tests/robustness --fuzz-cases=2000 --fuzz-seed=1
    pytest tests/robustness --fuzz-seed=1 --fuzz-case=137        the failure of one case again

Whatever a file holds, a command ends with status 0, 1 or 2 and one line of error, without a
traceback, leaves nothing half-written or behind, changes no input, and runs nothing that is in it.
"""

from tests.robustness import cases
from tests.robustness.stand_ins import put_in_place
from tests.robustness.whole_inputs import INPUTS


def pytest_generate_tests(metafunc):
    if "fuzz_case" in metafunc.fixturenames:
        seed = metafunc.config.getoption("--fuzz-seed")
        one = metafunc.config.getoption("--fuzz-case")
        count = metafunc.config.getoption("--fuzz-cases")
        numbers = range(count) if one is None else [one]
        metafunc.parametrize("fuzz_case", numbers, ids=[f"seed{seed}-case{n}" for n in numbers])


def test_fuzz_case(fuzz_case, request, whole_inputs, folder, monkeypatch):
    seed = request.config.getoption("--fuzz-seed")
    case = cases.prepare(seed, fuzz_case, whole_inputs, folder)
    put_in_place(monkeypatch, networks=INPUTS[case.kind].networks)
    outcome, broken = cases.run(case, folder)
    assert not broken, (
        f"{case}\nstatus {outcome.status}: {'; '.join(broken)}\n{outcome.stderr[-3000:]}\n"
        f"again: pytest tests/robustness --fuzz-seed={seed} --fuzz-case={fuzz_case}"
    )
