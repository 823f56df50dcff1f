"""A run's directory: its config, versions, command, metrics, images and report."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float
from tensorboardX import SummaryWriter

from interestyle_jax.data.images import save_image
from interestyle_jax.data.pixels import to_uint8
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.json_file import parse_json, read_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.training.run_files import RunFiles
from interestyle_jax.training.same_run import check_same_run, read_saved_config
from interestyle_jax.whole_files import write_whole

# What the command reads of a finished run's report.
REPORTED = {"status", "last_step"}


def git_commit() -> str | None:
    """Commit of the checkout that holds this file, with "+changes" where it is not clean."""
    here = Path(__file__).resolve().parent

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _step(line: bytes) -> int | None:
    """The step of a line of `metrics.jsonl`, or None for one that was cut off or damaged."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


class RunDirectory:
    """Writes a run's files; only the first process of a run does, the others read."""

    def __init__(
        self,
        workdir: Path | RunFiles,
        config: ml_collections.ConfigDict,
        command: list[str],
        *,
        writes: bool = True,
    ):
        """Makes the directory and writes `config.json` and `run.json`.

        Args:
          workdir: the directory, which all processes see; of a run in a bucket its files.
          config: the run's config.
          command: the command line.
          writes: whether this process is the one that writes.

        Raises:
          InputError: the directory cannot be made or written, or holds a run with another config.
        """
        self._writes = writes
        self._files = workdir if isinstance(workdir, RunFiles) else RunFiles(workdir)
        self.path, self.place = self._files.path, self._files.place
        self.checkpoints = self._files.checkpoints
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_error(error, f"{self.path}: cannot be made") from error
        self.config = json.loads(config.to_json())
        saved = read_saved_config(self.path)
        if saved is not None:
            check_same_run(saved, self.config, self.place)
        facts = {"command": command, "git_commit": git_commit(), "versions": library_versions()}
        self.facts = facts
        if not writes:
            return
        write_json(self.path / "config.json", self.config)
        write_json(self.path / "run.json", facts | {"argv": sys.argv})
        self.publish()

    @functools.cached_property
    def _board(self) -> SummaryWriter:
        # From the first line on: it has a thread, which a run that fails before would leave.
        return SummaryWriter(str(self.path / "tensorboard"))

    def has_weights(self) -> bool:
        """Whether whole weights are there."""
        return self._files.has_weights()

    def publish(self) -> None:
        """Copies what is new to the bucket of a run that lies in one.

        Raises:
          InputError, MachineError: as `RunFiles.publish`.
        """
        if self._writes:
            self._files.publish()

    @property
    def metrics_path(self) -> Path:
        """`metrics.jsonl`, one line a logged step."""
        return self.path / "metrics.jsonl"

    def forget_after(self, step: int) -> None:
        """Drops logged lines after `step`: a resumed run writes them again."""
        if not self._writes or not self.metrics_path.exists():
            return
        lines = self.metrics_path.read_bytes().splitlines()
        kept = [line for line in lines if (logged := _step(line)) is not None and logged <= step]
        write_whole(self.metrics_path, b"".join(line + b"\n" for line in kept))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a line to `metrics.jsonl` and scalars to TensorBoard."""
        if not self._writes:
            return
        with self.metrics_path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def image(self, step: int, grid: Float[np.ndarray, "rows columns H W 3"]) -> None:
        """Saves a grid [rows, columns, H, W, 3] in [-1, 1] as PNG and on TensorBoard."""
        if not self._writes:
            return
        rows, columns, height, width, _ = grid.shape
        sheet = grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
        sheet = to_uint8(sheet)
        folder = self.path / "images"
        folder.mkdir(exist_ok=True)
        save_image(folder / f"step_{step:08d}.png", sheet)
        self._board.add_image("images", sheet, step, dataformats="HWC")

    def report(self, report: dict[str, Any]) -> None:
        """Writes `report.json`."""
        if self._writes:
            write_json(self.path / "report.json", report | self.facts)
            self.publish()

    def finished_report(self) -> dict[str, Any] | None:
        """What `report.json` says, where it is there and says that the run was completed."""
        try:
            report = read_json(self.path / "report.json")
        except (FileNotFoundError, InputError):
            return None
        is_whole = isinstance(report, dict) and REPORTED <= report.keys()
        return report if is_whole and report["status"] == "completed" else None

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        if "_board" in vars(self):
            self._board.close()
            self.publish()
