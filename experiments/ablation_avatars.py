"""The four rows of the paper's Table 2 in the avatar world, each with several seeds.

    python -m experiments.ablation_avatars --data=data/avatars --out=runs/ablation --seeds=0,1,2

Trains every row of `configs/ablation_avatars.py` with every seed (`interestyle train`), measures
the rows of a seed together on the test split (`interestyle evaluate`), and writes `table.md`,
`ablation.json` and `images.png` to --out, after every seed. What an earlier call finished is
not done again; an interrupted training resumes from its last checkpoint.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.ablation_table import markdown, summarize
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.config.files import read_config
from interestyle_jax.config.table_2 import ROWS
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.json_file import read_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.training.run_directory import check_same_run, git_commit

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ablation_avatars.py"
NAMES = tuple(ROWS)
# What the rows differ in, and what has an option of its own: an override would be for all rows.
OWN_FIELDS = {
    *(f"method.{x}" for x in ("interest_loss", "gradient", "disentangle_weight", "filter_radii")),
    *("seed", "num_steps", "batch_size", "data.dir", "preset"),
}


class CommandFailedError(Exception):
    """A command that this script started ended badly; carries its exit status."""

    def __init__(self, what: str, status: int):
        super().__init__(f"{what} ended with status {status}; the same call resumes from there")
        self.status = status


def interestyle(*words: str) -> int:
    """Runs the command line of this interpreter's package; returns its exit status."""
    return subprocess.run([sys.executable, "-m", "interestyle_jax", *words]).returncode


def train_row(row: str, seed: int, args: argparse.Namespace) -> Path:
    """Trains a row with a seed unless that is done; returns the run's directory.

    Raises:
      InputError: the directory holds a run with another config, data set or more steps.
      CommandFailedError: the training failed.
    """
    workdir = args.out / "runs" / f"{row}_seed{seed}"
    overrides = [
        f"--config.data.dir={args.data}",
        f"--config.seed={seed}",
        f"--config.num_steps={args.steps}",
        f"--config.batch_size={args.batch_size}",
        *args.overrides,
    ]
    config = f"{CONFIG}:{row}"
    wanted = json.loads(read_config(config, overrides=overrides).to_json())
    if (workdir / "config.json").is_file():
        saved = read_json(workdir / "config.json")
        check_same_run(saved, wanted, workdir)
        if saved["data"] != wanted["data"]:
            raise InputError(f"config.data: {workdir} was begun with {saved['data']['dir']!r}")
    if (workdir / "report.json").is_file():
        report = read_json(workdir / "report.json")
        if report["last_step"] > args.steps:
            raise InputError(
                f"--steps: {workdir} has {report['last_step']} already, expected at most "
                f"{args.steps}; give another --out"
            )
        if report["status"] == "completed" and report["last_step"] == args.steps:
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


def evaluate_seed(seed: int, workdirs: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Measures the rows of a seed unless that is done; returns the content of metrics.json.

    Raises:
      CommandFailedError: the evaluation failed.
    """
    out = args.out / "evaluation" / f"seed{seed}"
    words = ["evaluate", f"--data={args.data}", f"--out={out}"]
    for row, workdir in zip(NAMES, workdirs, strict=True):
        words += [f"--weights={workdir / 'weights'}", f"--name={row}"]
    if args.num_samples:
        words.append(f"--num-samples={args.num_samples}")
    begun, metrics = out / "command.json", out / "metrics.json"
    newest = max((w / "weights" / "metadata.json").stat().st_mtime for w in workdirs)
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
        raise CommandFailedError(f"evaluating seed {seed}", status)
    return read_json(metrics)


def write_results(
    measured: dict[int, dict[str, Any]], args: argparse.Namespace, command: str
) -> dict[str, Any]:
    """Writes table.md, ablation.json and images.png to --out; returns the summary."""
    first = next(iter(measured))
    summary = summarize(measured, ROWS)
    reports = {
        row: [read_json(args.out / "runs" / f"{row}_seed{s}" / "report.json") for s in measured]
        for row in NAMES
    }
    summary["setting"] = {
        "command": command,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "data": str(args.data),
        "num_images": measured[first]["num_images"],
        "images_per_second": {
            row: [r["images_per_second"] for r in runs] for row, runs in reports.items()
        },
        "best_steps": {row: [r["best_step"] for r in runs] for row, runs in reports.items()},
        "git_commit": git_commit(),
        "versions": library_versions(),
    }
    with output_folder(args.out) as folder:
        write_json(folder / "ablation.json", summary)
        (folder / "table.md").write_text(markdown(summary), encoding="utf-8")
        # `evaluate` draws the same first images for all rows side by side.
        sheet = args.out / "evaluation" / f"seed{first}" / "figures" / "comparison.png"
        shutil.copyfile(sheet, folder / "images.png")
    return summary


def _seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r}, expected different whole numbers like 0,1,2")
    return [int(part) for part in parts]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; `overrides` holds the --config.field=value ones."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--config.field=value changes a field of the config in every row, "
        "e.g. --config.checkpoint_every=500.",
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="avatar data set")
    add_out_option(parser)
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument("--steps", type=count, default=1000, help="each row's (1000)")
    parser.add_argument("--batch-size", type=count, default=16, help="default 16")
    parser.add_argument("--num-samples", type=count, help="test images (default all)")
    args, overrides = parser.parse_known_args(argv)
    args.overrides = overrides
    for word in overrides:
        if not (word.startswith("--config.") and "=" in word):
            parser.error(f"unknown argument {word}")
        if word.removeprefix("--config.").partition("=")[0] in OWN_FIELDS:
            parser.error(f"{word}: this field is the rows' own or has an option of its own")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`), or the status of a failed command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parse(argv)
    return run_command(lambda: _run(args, argv), program="ablation")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    command = shlex.join(["python", "-m", "experiments.ablation_avatars", *argv])
    measured: dict[int, dict[str, Any]] = {}
    try:
        for seed in args.seeds:
            workdirs = [train_row(row, seed, args) for row in NAMES]
            measured[seed] = evaluate_seed(seed, workdirs, args)
            write_results(measured, args, command)
    except CommandFailedError as error:
        print(f"ablation: error: {error}", file=sys.stderr)
        return error.status
    print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"written to {args.out}: table.md, ablation.json, images.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
