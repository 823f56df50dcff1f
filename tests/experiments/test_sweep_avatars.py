"""The sweep of the method's numbers: one field changed at a time, and its table's arithmetic."""

import json
from pathlib import Path

import pytest

from experiments import sweep_avatars, trainings
from interestyle_jax.config.encoder_checks import check_encoder_config
from interestyle_jax.config.files import load_config


@pytest.fixture
def trained(monkeypatch):
    """{run: its config} of a script whose trainings and measurements are made up."""
    configs = {}

    def interestyle(command, *words):
        options = [w.removeprefix("--").split("=", 1) for w in words]
        values = dict(options)
        if command == "train":
            workdir = Path(values.pop("workdir"))
            overrides = [f"--{k}={v}" for k, v in values.items() if k != "config"]
            config = trainings.read_config(values["config"], overrides=overrides)
            configs[workdir.name] = config
            (workdir / "weights").mkdir(parents=True)
            (workdir / "config.json").write_text(config.to_json())
            report = {"status": "completed", "last_step": config.num_steps}
            (workdir / "report.json").write_text(json.dumps(report))
            return 0
        names = [value for name, value in options if name == "name"]
        figures = {
            name: dict.fromkeys(("interest", "face", "leakage"), {"l2": k / 10, "lpips": k})
            for k, name in enumerate(names)
        }
        found = {"num_images": 5, "encoders": figures}
        (Path(values["out"]) / "metrics.json").write_text(json.dumps(found))
        return 0

    monkeypatch.setattr(trainings, "interestyle", interestyle)
    return configs


def test_one_field_changes_at_a_time(trained, tmp_path):
    words = [f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'out'}", "--seeds=0,1"]
    assert sweep_avatars.main(words) == 0
    assert len(trained) == 2 + len(sweep_avatars.CHANGES)
    base = trained["method_seed0"]
    demo = load_config(str(sweep_avatars.CONFIG))
    assert base.method.to_dict() == demo.method.to_dict()
    assert base.weights.encoder == "avatar_interestyle"
    for name, (_, fields) in sweep_avatars.CHANGES.items():
        config = trained[f"{name}_seed0"]
        check_encoder_config(config)
        assert {k: config.method[k] for k in fields} == fields
        assert any(config.method[k] != base.method[k] for k in fields)
        for field in fields:
            config.method[field] = base.method[field]
        assert config.to_dict() == base.to_dict()


def test_differences_are_those_of_the_same_seed(trained, tmp_path):
    out = tmp_path / "out"
    words = [f"--data={tmp_path / 'data'}", f"--out={out}", "--seeds=3,4", "--changes=swap"]
    assert sweep_avatars.main(words) == 0
    assert list(trained) == ["method_seed3", "method_seed4", "swap_seed3"]
    summary = json.loads((out / "sweep.json").read_text())
    assert summary["before"]["interest_lpips"] == 0
    assert summary["method"]["interest_lpips"] == {"mean": 1.5, "sd": pytest.approx(0.5**0.5)}
    assert summary["changes"]["swap"]["interest_lpips"] == {"value": 3, "difference": 2}
    table = (out / "table.md").read_text()
    assert "| 1.5000 ± 0.7071 |" in table and "| uninterest swap | +0.2000 |" in table
    calls = len(trained)
    assert sweep_avatars.main(words) == 0
    assert len(trained) == calls


@pytest.mark.parametrize("word", ["--changes=other", "--seeds=0,0", "--steps=0"])
def test_bad_usage(trained, tmp_path, word):
    with pytest.raises(SystemExit) as stopped:
        sweep_avatars.main([f"--data={tmp_path}", f"--out={tmp_path / 'out'}", word])
    assert stopped.value.code == 2
