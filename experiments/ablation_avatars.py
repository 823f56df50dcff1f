"""The rows of the paper's Table 2 in the avatar world, and one of ours, with several seeds each.

    python -m experiments.ablation_avatars --data=data/avatars --out=runs/ablation --seeds=0,1,2

Trains every row of `configs/ablation_avatars.py` with every seed (`interestyle train`), measures
the rows of a seed together on the test split (`interestyle evaluate`), and writes `table.md`,
`ablation.json` and `images.png` to --out, after every seed. What an earlier call finished is
not done again; an interrupted training resumes from its last checkpoint.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.ablation_table import markdown, summarize
from experiments.trainings import CommandFailedError, evaluate, seeds, train
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.config.table_2 import ROWS
from interestyle_jax.exit_status import run_command
from interestyle_jax.json_file import read_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.training.run_directory import git_commit

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ablation_avatars.py"
NAMES = tuple(ROWS)
# What the rows differ in, and what has an option of its own: an override would be for all rows.
OWN_FIELDS = {
    *(
        f"method.{x}"
        for x in ("interest_loss", "gradient", "disentangle_weight", "filter_radii", "swap")
    ),
    *("seed", "num_steps", "batch_size", "data.dir", "preset"),
}


def train_row(row: str, seed: int, args: argparse.Namespace) -> Path:
    """Trains a row with a seed unless that is done; as `trainings.train`."""
    overrides = [
        f"--config.data.dir={args.data}",
        f"--config.seed={seed}",
        f"--config.num_steps={args.steps}",
        f"--config.batch_size={args.batch_size}",
        *args.overrides,
    ]
    return train(f"{CONFIG}:{row}", args.out / "runs" / f"{row}_seed{seed}", overrides)


def evaluate_seed(seed: int, workdirs: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Measures the rows of a seed unless that is done; as `trainings.evaluate`."""
    weights = {row: path / "weights" for row, path in zip(NAMES, workdirs, strict=True)}
    options = [f"--data={args.data}"]
    if args.num_samples:
        options.append(f"--num-samples={args.num_samples}")
    out = args.out / "evaluation" / f"seed{seed}"
    return evaluate(weights, out, options, what=f"evaluating seed {seed}")


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
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2], metavar="0,1,2")
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
