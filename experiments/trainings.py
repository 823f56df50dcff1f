"""Trainings and measurements of experiments: by the `interestyle` command, each done once."""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interestyle_jax.config.files import read_config
from interestyle_jax.errors import InputError
from interestyle_jax.json_file import read_json, write_json
from interestyle_jax.training.run_directory import check_same_run


class CommandFailedError(Exception):
    """A command that a script started ended badly; carries its exit status."""

    def __init__(self, what: str, status: int):
        super().__init__(f"{what} ended with status {status}; the same call resumes from there")
        self.status = status


def interestyle(*words: str) -> int:
    """Runs the command line of this interpreter's package; returns its exit status."""
    return subprocess.run([sys.executable, "-m", "interestyle_jax", *words]).returncode


def train(
    config: str, workdir: Path, overrides: Sequence[str], *, runs: Iterable[Path] = ()
) -> Path:
    """Trains a config unless that is done; returns the run's directory.

    Args:
      config: file of `configs/` and its argument.
      workdir: of the run.
      overrides: --config.field=value.
      runs: folders of other runs' directories; one of these that has ended with the very same
        config is the result.

    Raises:
      InputError: the directory holds a run with another config, data set or more steps.
      CommandFailedError: the training failed.
    """
    wanted = json.loads(read_config(config, overrides=overrides).to_json())
    steps = wanted["num_steps"]
    if (workdir / "config.json").is_file():
        saved = read_json(workdir / "config.json")
        check_same_run(saved, wanted, workdir)
        if saved["data"] != wanted["data"]:
            raise InputError(f"config.data: {workdir} was begun with {saved['data']['dir']!r}")
    else:
        found = next((run for folder in runs for run in _same_runs(folder, wanted)), None)
        if found is not None:
            print(f"{workdir}: {found} is the same training", flush=True)
            return found
    if (workdir / "report.json").is_file():
        report = read_json(workdir / "report.json")
        if report["last_step"] > steps:
            raise InputError(
                f"--steps: {workdir} has {report['last_step']} already, expected at most {steps}; "
                "give another --out"
            )
        if report["status"] == "completed" and report["last_step"] == steps:
            print(f"{workdir}: trained already")
            return workdir
    print(f"{workdir}: training", flush=True)
    status = interestyle("train", f"--config={config}", f"--workdir={workdir}", *overrides)
    if status:
        raise CommandFailedError(f"training {workdir}", status)
    # A training that is asked to stop (SIGTERM) ends with status 0 before its last step.
    if read_json(workdir / "report.json")["status"] != "completed":
        raise CommandFailedError(f"training {workdir} (stopped early)", 1)
    return workdir


def _same_runs(folder: Path, wanted: Mapping[str, Any]) -> list[Path]:
    """Run directories in a folder that have ended with this config, on this data."""
    if not folder.is_dir():
        raise InputError(f"--runs: {folder} is no folder of runs")
    return [path for path in sorted(folder.iterdir()) if _is_same_run(path, wanted)]


def _is_same_run(path: Path, wanted: Mapping[str, Any]) -> bool:
    try:
        saved, report = read_json(path / "config.json"), read_json(path / "report.json")
        check_same_run(saved, dict(wanted), path)
    except (OSError, InputError):
        return False
    ended = report["status"] == "completed" and report["last_step"] == wanted["num_steps"]
    # The best checkpoint is what is measured.
    chosen = saved["checkpoint_every"] == wanted["checkpoint_every"]
    same = _files(saved) == _files(wanted)
    return bool(ended and chosen and same and (path / "weights/metadata.json").is_file())


def _files(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of data and weights, from any folder; empty fields count as none."""
    data = {name: value for name, value in config["data"].items() if name != "workers"}
    weights = {name: value for name, value in config["weights"].items() if value}
    return {**data, "dir": str(Path(data["dir"]).absolute()), "weights": weights}


def evaluate(
    weights: Mapping[str, Path], out: Path, options: Sequence[str], *, what: str
) -> dict[str, Any]:
    """Measures encoders (`interestyle evaluate`) unless that is done; returns metrics.json.

    Args:
      weights: {name in the results: weight directory, or the name of weights that ship}.
      out: folder.
      options: other options of the command, "--data=..." among them.
      what: is said where it fails.

    Raises:
      CommandFailedError: the evaluation failed.
    """
    words = ["evaluate", *options[:1], f"--out={out}"]
    for name, path in weights.items():
        words += [f"--weights={path}", f"--name={name}"]
    words += options[1:]
    begun, metrics = out / "command.json", out / "metrics.json"
    files = [path / "metadata.json" for path in map(Path, weights.values())]
    newest = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    if not (begun.is_file() and read_json(begun) == words and begun.stat().st_mtime > newest):
        # `evaluate` does not go on with what it measured of other weights.
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_json(begun, words)
    elif metrics.is_file():
        print(f"{out}: measured already")
        return read_json(metrics)
    status = interestyle(*words)
    if status:
        raise CommandFailedError(what, status)
    return read_json(metrics)


def seeds(text: str) -> list[int]:
    """Type of the option --seeds: "0,1,2", different whole numbers."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r}, expected different whole numbers like 0,1,2")
    return [int(part) for part in parts]
