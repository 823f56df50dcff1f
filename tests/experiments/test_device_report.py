"""The device report: kinds in compiled texts, what has no time, and a tiny run."""

import json

import jax
import jax.numpy as jnp
import pytest

from experiments import device_report
from experiments.device_page import counted_text, page, peak_of
from experiments.device_programs import FORMS, SIZES, in_form, random_variables, synthesis
from experiments.device_report import Report, main, run_program
from interestyle_jax.json_file import read_json
from interestyle_jax.models import registry

TEXT = """
  %a = (bf16[8,9]{1,0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  %b = (bf16[8,4]{1,0}) custom-call(%x), custom_call_target="__cudnn$convBackwardInput"
  %c = f32[4,4]{1,0} transpose(%x), dimensions={1,0}
  %d = f32[1024,2048]{1,0} transpose(%x), dimensions={1,0}
  %e = f32[8,8]{1,0} pad(%x, %y), padding=0_0x2_2_1
  %f = f32[8,8]{1,0} pad(%x, %y), padding=0_0x2_2
"""


def test_kinds_in_a_compiled_text():
    assert counted_text(TEXT) == {
        "convForward": 1,
        "convBackwardInput": 1,
        "zero-inserting pads": 1,
        "transposes": 2,
        "large transposes": 1,
        "instructions": 7,
    }
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12 and peak_of("cpu") is None


def test_the_plain_form_inserts_zeros_on_gpus():
    variables = random_variables(registry.build(SIZES["tiny"].generator))

    def reversals(form):
        with in_form(form) as named:
            jitted, arguments = synthesis(SIZES["tiny"], variables, named, 1)
            lowered = jitted.trace(*arguments).lower(lowering_platforms=("cuda",))
            return lowered.as_text().count("stablehlo.reverse")

    assert [reversals(form) for form in ("separable", "plain", "separable")] == [6, 0, 6]


def test_what_fails_or_has_no_time_is_said_and_the_rest_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(device_report, "TIMING_SECONDS", 0.0)
    facts = device_report.device_facts() | {"command": "here"}
    report = Report(tmp_path, minutes=1.0, facts=facts, guesses={"training": 3600.0})

    def multiply():
        return run_program(jax.jit(lambda a: a @ a), (jnp.ones((64, 64)),), images=2)

    def fail():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

    report.measure("synthesis", "one", multiply)
    content = read_json(tmp_path / "report.json")
    assert content["measurements"][0]["flops"] == 2.0 * 64**3
    report.measure("synthesis", "two", fail)
    report.measure("training", "three", multiply)
    text = (tmp_path / "report.md").read_text()
    assert "| one | " in text and "| nan; nan |" in text
    assert "- two: **RuntimeError: " in text and "out of memory" in text
    assert "For want of time (1 minutes):\n\n- training: three\n" in text
    assert page(read_json(tmp_path / "report.json")) == text


def test_bad_options_end_with_a_line(tmp_path, capfd):
    assert main([f"--out={tmp_path}", "--batches=0"]) == 2
    assert main([f"--out={tmp_path}", "--forms=plain,other"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert "--batches: '0'" in lines[0] and "--forms: 'other'" in lines[1]


@pytest.mark.slow
def test_a_tiny_report_has_every_section(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device_report, "TIMING_SECONDS", 0.0)
    arguments = ["--size=tiny", "--batches=2", "--minutes=20", "--trace"]
    assert main([f"--out={tmp_path}", *arguments]) == 0
    content = json.loads((tmp_path / "report.json").read_text())
    found = {}
    for entry in content["measurements"]:
        assert "error" not in entry
        found.setdefault(entry["section"], []).append(entry)
    assert [len(entries) for entries in found.values()] == [6, 4, 1, 1, 4]
    assert [e["name"] for e in found["synthesis"]] == [f"{form}, batch 2" for form in FORMS]
    assert max(e["largest_difference"] for e in found["parity"]) < 3e-6
    assert content["left_out"] == [] and list((tmp_path / "trace").rglob("*.pb"))
    assert capsys.readouterr().out == (tmp_path / "report.md").read_text()
