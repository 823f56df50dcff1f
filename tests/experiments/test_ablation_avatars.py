"""The ablation: its configs' rows, its table's arithmetic, and its script without training."""

import importlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from experiments import trainings
from experiments.ablation_table import METRICS, NAMES, correct, order, summarize
from interestyle_jax.config.files import load_config
from interestyle_jax.config.presets import encoder_config
from interestyle_jax.config.table_2 import ROWS, SWAP_SHARE, set_row
from interestyle_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "ablation_avatars.py"


def test_rows_add_one_component_each():
    demo = load_config(str(ROOT / "configs" / "demo.py"))
    demo.single_pass_until = 0.0
    configs = {row: load_config(f"{CONFIG}:{row}") for row in ROWS}
    assert configs["unf"] == demo
    expected = {
        "restyle": (False, "each", 0.0, False),
        "interest": (True, "last", 0.0, False),
        "ind": (True, "last", demo.method.disentangle_weight, False),
        "unf": (True, "last", demo.method.disentangle_weight, True),
        "swap": (True, "last", demo.method.disentangle_weight, True),
    }
    changed = ("interest_loss", "gradient", "disentangle_weight", "filter_radii", "swap")
    for row, config in configs.items():
        method = config.method
        found = (
            method.interest_loss,
            method.gradient,
            method.disentangle_weight,
            any(method.filter_radii),
        )
        assert found == expected[row]
        assert method.swap == (SWAP_SHARE if row == "swap" else 0.0)
        for name in changed:
            del method[name]
        config.preset = demo.preset
        rest = demo.copy_and_resolve_references()
        for name in changed:
            del rest.method[name]
        assert config == rest, row


def test_the_first_row_is_the_restyle_preset():
    config = set_row(encoder_config("interestyle"), "restyle")
    assert config == encoder_config("restyle_psp")


def test_smoke_and_unknown_words():
    small = load_config(f"{CONFIG}:smoke")
    assert small == load_config(str(ROOT / "configs" / "demo.py") + ":smoke")
    assert load_config(f"{CONFIG}:restyle,smoke").method.gradient == "each"
    assert load_config(f"{CONFIG}:restyle,smoke").num_steps == small.num_steps
    with pytest.raises(InputError, match="restyle, interest, ind, unf, swap or smoke, got 'other'"):
        load_config(f"{CONFIG}:other")


def test_set_row_needs_the_whole_method():
    with pytest.raises(ValueError, match="a component is off already"):
        set_row(encoder_config("restyle_psp"), "ind")
    with pytest.raises(ValueError, match="expected one of"):
        set_row(encoder_config(), "other")


def metrics(values: dict[str, float]) -> dict:
    """metrics.json whose every figure of a row is its value; no clean images, so no leakage."""
    both = {name: {"l2": v, "lpips": v} for name, v in values.items()}
    return {
        "num_images": 5,
        "mean_latent": {"interest": {"l2": 1.0, "lpips": 1.0}, "face": {"l2": 1.0, "lpips": 1.0}},
        "encoders": {
            name: {"interest": x, "face": x, "leakage": {"l2": None, "lpips": None}}
            for name, x in both.items()
        },
    }


@pytest.fixture
def summary():
    """InD differs from the row before by noise alone, UnF is worse than it, swap better."""
    measured = [
        metrics(dict(zip(NAMES, values, strict=True)))
        for values in (
            (0.40, 0.300, 0.310, 0.350, 0.300),
            (0.50, 0.401, 0.391, 0.432, 0.383),
            (0.45, 0.349, 0.349, 0.388, 0.337),
        )
    ]
    return summarize(dict(enumerate(measured)), ROWS)


def test_mean_and_standard_error(summary):
    entry = summary["rows"]["restyle"]["interest_l2"]
    assert entry["mean"] == pytest.approx(0.45)
    assert entry["se"] == pytest.approx(0.05 / np.sqrt(3))
    assert list(summary["rows"]["unf"]) == [m for m in METRICS if "leakage" not in m]


def test_pairs_are_compared_seed_by_seed(summary):
    assert [(p["from"], p["to"]) for p in summary["pairs"]] == [
        ("restyle", "interest"), ("interest", "ind"), ("ind", "unf"), ("unf", "swap"),
        ("restyle", "unf"),
    ]  # fmt: skip
    first = summary["pairs"][0]["metrics"]["interest_lpips"]
    expected = stats.ttest_rel([0.300, 0.401, 0.349], [0.40, 0.50, 0.45])
    assert first["mean"] == pytest.approx(-0.1)
    assert first["p"] == pytest.approx(expected.pvalue)
    orders = [p["metrics"]["interest_lpips"]["order"] for p in summary["pairs"]]
    assert orders == [-1, 0, 1, -1, -1]


def test_p_is_corrected_for_all_comparisons(summary):
    """q by the formula: p times the number, times the sum of 1/k, over the rank from below."""
    entries = [entry for pair in summary["pairs"] for entry in pair["metrics"].values()]
    p = np.array([entry["p"] for entry in entries])
    count = len(p)
    scaled = np.sort(p) * count * sum(1 / k for k in range(1, count + 1)) / np.arange(1, count + 1)
    smallest = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    expected = smallest[np.searchsorted(np.sort(p), p, side="right") - 1]
    np.testing.assert_allclose([entry["q"] for entry in entries], expected)
    # A difference of twice its standard error is none, among as many.
    doubtful = [{"p": 0.04, "mean": -1.0}, *({"p": 0.5, "mean": 1.0} for _ in range(9))]
    correct(doubtful)
    assert {order(entry) for entry in doubtful} == {0}


def test_findings_follow_the_papers_order(summary):
    found = {
        (p["from"], p["to"], name): (entry["paper"], entry["finding"])
        for p in summary["pairs"]
        for name, entry in p["metrics"].items()
    }
    assert found["restyle", "interest", "interest_lpips"] == (-1, "reproduced")
    assert found["restyle", "interest", "face_l2"] == (1, "not reproduced")
    assert found["interest", "ind", "interest_l2"] == (-1, "not resolved")
    assert found["ind", "unf", "interest_l2"] == (1, "reproduced")
    assert found["ind", "unf", "interest_lpips"] == (-1, "not reproduced")
    assert found["ind", "unf", "face_l2"] == (0, "not reproduced")
    assert found["unf", "swap", "face_l2"] == (None, None)


def test_one_seed_resolves_nothing():
    one = summarize({0: metrics(dict(zip(NAMES, (4.0, 3.0, 2.0, 1.0, 1.0), strict=True)))}, ROWS)
    entry = one["pairs"][0]["metrics"]["interest_l2"]
    assert (entry["order"], entry["se"], entry["finding"]) == (None, None, "not resolved")


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script whose `interestyle` command writes what training and evaluation would."""
    module = importlib.import_module("experiments.ablation_avatars")
    module.calls = []

    def interestyle(command, *words):
        module.calls.append((command, words))
        options = dict(w.removeprefix("--").split("=", 1) for w in words if "weights" not in w)
        if command == "train":
            workdir = Path(options.pop("workdir"))
            overrides = [f"--{k}={v}" for k, v in options.items() if k != "config"]
            config = trainings.read_config(options["config"], overrides=overrides)
            (workdir / "weights").mkdir(parents=True, exist_ok=True)
            (workdir / "config.json").write_text(config.to_json())
            (workdir / "weights" / "metadata.json").write_text("{}")
            report = {
                "status": module.status,
                "last_step": config.num_steps,
                "best_step": config.num_steps,
                "images_per_second": 20.0 + config.seed,
            }
            (workdir / "report.json").write_text(json.dumps(report))
            return module.fails if str(workdir).endswith(module.fails_at) else 0
        out = Path(options["out"])
        (out / "figures").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(out / "figures" / "comparison.png")
        seed = int(out.name.removeprefix("seed"))
        values = {name: 1 / (2 + k + 0.1 * seed) for k, name in enumerate(NAMES)}
        (out / "metrics.json").write_text(json.dumps(metrics(values)))
        return 0

    module.fails, module.fails_at, module.status = 0, "nowhere", "completed"
    monkeypatch.setattr(trainings, "interestyle", interestyle)
    return module


def arguments(tmp_path, *more):
    return [f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'out'}", "--steps=7", *more]


def test_script_writes_its_files(script, tmp_path):
    words = arguments(tmp_path, "--seeds=0,3", "--num-samples=5", "--config.log_every=2")
    assert script.main(words) == 0
    out = tmp_path / "out"
    table = (out / "table.md").read_text()
    assert f"`python -m experiments.ablation_avatars {' '.join(words)}`" in table
    assert "FFHQ" in table and "not resolved" in table and "| 21.5 |" in table
    for label in ROWS.values():
        assert label in table
    summary = json.loads((out / "ablation.json").read_text())
    assert summary["seeds"] == [0, 3]
    assert summary["setting"]["steps"] == 7
    assert (out / "images.png").is_file()
    trained = [dict(w.split("=", 1) for w in words) for c, words in script.calls if c == "train"]
    assert len(trained) == 10
    assert {t["--config"].rpartition(":")[2] for t in trained} == set(ROWS)
    assert {t["--config.seed"] for t in trained} == {"0", "3"}
    assert all(t["--config.log_every"] == "2" for t in trained)


def test_what_is_finished_is_not_done_again(script, tmp_path):
    assert script.main(arguments(tmp_path, "--seeds=0")) == 0
    script.calls.clear()
    assert script.main(arguments(tmp_path, "--seeds=0,1")) == 0
    assert [c for c, _ in script.calls] == ["train"] * 5 + ["evaluate"]
    script.calls.clear()
    assert script.main(arguments(tmp_path, "--seeds=0", "--num-samples=3")) == 0
    assert [c for c, _ in script.calls] == ["evaluate"]


def test_what_was_measured_of_earlier_weights_is_removed(script, tmp_path):
    assert script.main(arguments(tmp_path, "--seeds=0")) == 0
    out = tmp_path / "out"
    (out / "evaluation" / "seed0" / "progress.jsonl").write_text("of other weights")
    newer = out / "runs" / "unf_seed0" / "weights" / "metadata.json"
    os.utime(newer, (time.time() + 60,) * 2)
    script.calls.clear()
    assert script.main(arguments(tmp_path, "--seeds=0")) == 0
    assert [c for c, _ in script.calls] == ["evaluate"]
    assert not (out / "evaluation" / "seed0" / "progress.jsonl").exists()


def test_runs_of_another_config_are_refused(script, tmp_path, capsys):
    assert script.main(arguments(tmp_path, "--seeds=0")) == 0
    for changed, named in (
        ("--batch-size=8", "config.batch_size"),
        ("--steps=5", "config.num_steps"),
        (f"--data={tmp_path / 'other'}", "config.data"),
    ):
        assert script.main(arguments(tmp_path, "--seeds=0", changed)) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


def test_a_failed_training_ends_the_script_with_its_status(script, tmp_path, capsys):
    script.fails, script.fails_at = 2, "interest_seed0"
    assert script.main(arguments(tmp_path, "--seeds=0")) == 2
    assert "interest_seed0 ended with status 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table.md").exists()


def test_a_training_stopped_early_is_not_measured(script, tmp_path, capsys):
    script.status = "preempted"
    assert script.main(arguments(tmp_path, "--seeds=0")) == 1
    assert "stopped early" in capsys.readouterr().err
    assert [c for c, _ in script.calls] == ["train"]


@pytest.mark.parametrize(
    "word",
    ["--unknown=1", "--seeds=0,0", "--seeds=a", "--steps=0", "--config.method.gradient=each"],
)
def test_bad_usage(script, tmp_path, word):
    with pytest.raises(SystemExit) as stopped:
        script.main(arguments(tmp_path, word))
    assert stopped.value.code == 2
