"""What the numbers of InD, UnF and the mask do: short trainings from one encoder, one changed each.

    python -m experiments.sweep_avatars --data=data/avatars --out=runs/sweep

Each training begins at the encoder of --encoder and runs configs/demo.py, the paper's method, with
N iterations in every step and one field changed; the method as it is runs with every seed of
--seeds, whose spread says which differences mean something. All are measured together on the test
split (`interestyle evaluate`). Writes `table.md` and `sweep.json` to --out. What an earlier call
finished is not done again; an interrupted training resumes from its last checkpoint.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ablation_table import METRICS
from experiments.report_files import write_report
from experiments.trainings import CommandFailedError, evaluate, seeds, train
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.exit_status import run_command
from interestyle_jax.library_versions import library_versions
from interestyle_jax.training.run_directory import git_commit

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.py"
BASE = "method"
# name: (label, fields of config.method).
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "no_ind": ("no InD, λ = 0", {"disentangle_weight": 0.0}),
    "lambda_0.2": ("λ = 0.2", {"disentangle_weight": 0.2}),
    "lambda_1": ("λ = 1", {"disentangle_weight": 1.0}),
    "through_w": ("InD's gradient also through w_N", {"disentangle_through_w": True}),
    "no_filter": ("no UnF", {"filter_radii": (0.0, 0.0, 0.0, 0.0)}),
    "half_radii": ("UnF's radii halved", {"filter_radii": (8.0, 4.5, 2.0, 0.5)}),
    "double_radii": ("UnF's radii doubled", {"filter_radii": (32.0, 18.0, 8.0, 2.0)}),
    "filter_image": ("UnF blurs the whole image", {"filter_region": "image"}),
    "dilation_0": ("the raw mask", {"dilation_radius": 0}),
    "dilation_4": ("the mask dilated by 4 pixels", {"dilation_radius": 4}),
    "swap": ("uninterest swap", {"swap": 0.5}),
}


def trained(name: str, seed: int, args: argparse.Namespace) -> Path:
    """Trains one form unless that is done; returns its weights."""
    fields = {} if name == BASE else CHANGES[name][1]
    overrides = [
        f"--config.data.dir={args.data}",
        f"--config.weights.encoder={args.encoder}",
        f"--config.seed={seed}",
        f"--config.num_steps={args.steps}",
        f"--config.batch_size={args.batch_size}",
        f"--config.checkpoint_every={args.steps}",
        "--config.single_pass_until=0.0",
        # Its statistics are those of an encoder that has learnt.
        "--config.freeze_batch_norm_after=0.0",
        f"--config.optimizer.learning_rate={args.learning_rate}",
        f"--config.optimizer.adam_learning_rate={0.3 * args.learning_rate}",
        *(f"--config.method.{field}={value}" for field, value in fields.items()),
    ]
    return train(str(CONFIG), args.out / "runs" / f"{name}_seed{seed}", overrides) / "weights"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="avatar data set")
    add_out_option(parser)
    parser.add_argument(
        "--encoder", default="avatar_interestyle", help="weights that trainings begin at"
    )
    parser.add_argument("--changes", default=",".join(CHANGES), help="default all")
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2], help="of the method as it is")
    parser.add_argument("--steps", type=count, default=60, help="of each training (60)")
    parser.add_argument("--batch-size", type=count, default=32, help="default 32")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at first (0.002)")
    parser.add_argument("--num-samples", type=count, help="test images (default all)")
    args = parser.parse_args(argv)
    args.changes = [name for name in args.changes.split(",") if name]
    for name in args.changes:
        if name not in CHANGES:
            parser.error(f"--changes: {name!r}, expected of {', '.join(CHANGES)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`), or the status of a failed command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parse(argv)
    return run_command(lambda: _run(args, argv), program="sweep")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    forms = [(BASE, seed) for seed in args.seeds]
    forms += [(name, args.seeds[0]) for name in args.changes]
    options = [f"--data={args.data}"]
    if args.num_samples:
        options.append(f"--num-samples={args.num_samples}")
    try:
        weights = {f"{name}_seed{seed}": trained(name, seed, args) for name, seed in forms}
        weights = {"before": Path(args.encoder), **weights}
        measured = evaluate(weights, args.out / "evaluation", options, what="evaluating")
    except CommandFailedError as error:
        print(f"sweep: error: {error}", file=sys.stderr)
        return error.status
    summary = {
        **summarize(measured["encoders"], args.seeds, args.changes),
        "setting": {
            "command": shlex.join(["python", "-m", "experiments.sweep_avatars", *argv]),
            "encoder": args.encoder,
            "steps": args.steps,
            "batch_size": args.batch_size,
            "learning_rate": args.learning_rate,
            "data": args.data,
            "num_images": measured["num_images"],
            "git_commit": git_commit(),
            "versions": library_versions(),
        },
    }
    write_report(args.out, summary, markdown(summary), figures="sweep.json")
    print(f"written to {args.out}: table.md, sweep.json")
    return 0


def summarize(
    encoders: Mapping[str, Any], seeds: Sequence[int], changes: Sequence[str]
) -> dict[str, Any]:
    """The metrics of all forms.

    Returns:
      JSON-able: {"before", "method": {metric: {"mean", "sd" over the seeds or None}}, "changes":
      {name: {metric: {"value", "difference" to the method's with the same seed}}}}.
    """

    def values(name: str) -> dict[str, float]:
        return {m: encoders[name][region][d] for m, (_, (region, d)) in METRICS.items()}

    base = {m: [values(f"{BASE}_seed{seed}")[m] for seed in seeds] for m in METRICS}
    spread = len(seeds) > 1
    found: dict[str, Any] = {"before": values("before"), "seeds": list(seeds), "changes": {}}
    found["method"] = {
        m: {"mean": float(np.mean(x)), "sd": float(np.std(x, ddof=1)) if spread else None}
        for m, x in base.items()
    }
    for name in changes:
        own = values(f"{name}_seed{seeds[0]}")
        found["changes"][name] = {
            m: {"value": own[m], "difference": own[m] - base[m][0]} for m in METRICS
        }
    return found


def markdown(summary: Mapping[str, Any]) -> str:
    """The content of table.md, of what `sweep.json` holds."""
    setting, method = summary["setting"], summary["method"]
    seeds = ", ".join(map(str, summary["seeds"]))
    lines = [
        "# The numbers of InD, UnF and the mask",
        "",
        f"`{setting['command']}`",
        "",
        f"From `{setting['encoder']}`, {setting['steps']} steps of {setting['batch_size']} images "
        f"by the paper's method with one number changed, at a learning rate of "
        f"{setting['learning_rate']} at first. Measured on {setting['num_images']} test images of "
        f"`{setting['data']}`; lower is better. The method as it is ran with the seeds {seeds} (± "
        "the standard deviation over these); the others with the first, and show the difference "
        "from the same seed's. "
        f"jax {setting['versions']['jax']}, commit {setting['git_commit']}.",
        "",
        "| | " + " | ".join(label for label, _ in METRICS.values()) + " |",
        "|---|" + "---:|" * len(METRICS),
        "| before | " + " | ".join(f"{summary['before'][m]:.4f}" for m in METRICS) + " |",
    ]
    cells = [_plus_minus(**method[m]) for m in METRICS]
    lines.append("| the method as it is | " + " | ".join(cells) + " |")
    for name, metrics in summary["changes"].items():
        cells = [f"{metrics[m]['difference']:+.4f}" for m in METRICS]
        lines.append(f"| {CHANGES[name][0]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _plus_minus(mean: float, sd: float | None) -> str:
    return f"{mean:.4f}" + ("" if sd is None else f" ± {sd:.4f}")


if __name__ == "__main__":
    sys.exit(main())
