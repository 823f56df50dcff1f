"""The paper's Table 1 by one command: encoders, and methods that optimise, on the same images.

    python -m experiments.table_1 --data=data/avatars --out=runs/table_1 --seeds=0,1,2 \
        --vgg=weights/lpips_vgg

In the avatar world the encoders are trained, every row of `configs/table_1_avatars.py` with every
seed and an equal number of images; runs that an earlier experiment has made with the very same
config are taken from --runs (the ablation's are of this kind). Elsewhere weights are given, and
nothing is trained:

    python -m experiments.table_1 --data=data/celeba_hq --out=reports/table_1 \
        --weights=idinvert=DIR --weights=psp=DIR --weights=e4e=DIR --weights=restyle_psp=DIR \
        --weights=restyle_e4e=DIR --weights=interestyle=DIR --vgg=weights/lpips_vgg \
        --identity=weights/curricularface --face-detector=weights/mtcnn

Writes `table.md`, `metrics.json` and `trade_off.png` to --out, beside the paper's figures. What an
earlier call finished is not done again: trainings resume from their last checkpoint, methods from
the last image. Where its runs are gone, `--earlier=DIR` takes its metrics.json, and this call adds
other seeds or methods. `--smoke` is the smallest size, to see that everything fits.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.optimised_rows import (
    MASKED,
    as_encoder,
    label_of,
    measure_method,
    paired,
    preset_of,
    run_method,
    write_inputs,
)
from experiments.table_1_earlier import SHARED, join, read_earlier
from experiments.table_1_summary import markdown, summarize
from experiments.trade_off import draw_trade_off
from experiments.trainings import CommandFailedError, evaluate, seeds, train
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.config.presets import ADVERSARIAL
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.identity import load_identity
from interestyle_jax.evaluation.metrics import load_distance
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import load
from interestyle_jax.json_file import read_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.training.run_directory import git_commit

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "table_1_avatars.py"
# In the paper's order.
ROWS = {
    "idinvert": "IDInvert (StyleGAN2 adaptation)",
    "psp": "pSp",
    "e4e": "e4e",
    "restyle_psp": "ReStyle (pSp)",
    "restyle_e4e": "ReStyle (e4e)",
    "interestyle": "IntereStyle",
}
# Behind the name of a method that is a row's too.
OPTIMISED = "-optimised"
METHODS = ("image2stylegan", "image2stylegan-interest", "pti", "pti-interest")
# What has an option of its own, or is a row's.
OWN_FIELDS = ("seed", "num_steps", "batch_size", "data.dir", "preset", "weights.generator")
COMPARED = ("interest/lpips", "leakage/lpips", "leakage/l2")


def trained_weights(row: str, seed: int, args: argparse.Namespace) -> Path:
    """Trains an encoder with a seed unless that is done; returns its weights."""
    overrides = [
        f"--config.data.dir={args.data}",
        f"--config.weights.generator={args.generator}",
        f"--config.seed={seed}",
        f"--config.num_steps={args.steps}",
        f"--config.batch_size={args.batch_size}",
    ]
    if row in ADVERSARIAL:
        # As configs/table_1_avatars.py has it for its own number of steps.
        overrides.append(f"--config.progressive.start={max(1, args.steps // 10)}")
        overrides.append(f"--config.progressive.every={max(1, args.steps // 100)}")
    config = f"{CONFIG}:{row}" + (",smoke" if args.smoke else "")
    workdir = args.out / "runs" / f"{row}_seed{seed}"
    return train(config, workdir, [*overrides, *args.overrides], runs=args.runs) / "weights"


def measure_encoders(args: argparse.Namespace) -> tuple[dict[str, list[Any]], dict[str, Any], dict]:
    """Trains and measures the encoders.

    Returns:
      {row: entries of metrics.json, one a seed}, the mean latent's, {row: weights of the first}.
    """
    entries: dict[str, list[Any]] = {row: [] for row in args.rows}
    trained = [row for row in args.rows if row not in args.weights]
    options = [f"--data={args.data}", f"--split={args.split}", f"--lpips={args.lpips}"]
    for name in ("num_samples", "identity", "face_detector"):
        if getattr(args, name):
            options.append(f"--{name.replace('_', '-')}={getattr(args, name)}")
    first: dict[str, Path] = {}
    mean_latent: dict[str, Any] = {}
    for seed in args.seeds if trained else args.seeds[:1]:
        weights = {row: trained_weights(row, seed, args) for row in trained}
        if seed == args.seeds[0]:
            weights |= args.weights
            weights = {row: weights[row] for row in args.rows}
            first = dict(weights)
        out = args.out / "evaluation" / f"seed{seed}"
        metrics = evaluate(weights, out, options, what=f"evaluating seed {seed}")
        for row, entry in metrics["encoders"].items():
            entries[row].append(entry)
        mean_latent = mean_latent or metrics["mean_latent"]
    return entries, mean_latent, first


def measure_methods(
    first: Mapping[str, Path], args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Runs and measures the methods.

    Returns:
      {row: entry of metrics.json}, {row: its facts}, {row: tests of its masked form}.
    """
    if not args.methods:
        return {}, {}, {}
    num_images = write_inputs(args.data, args.split, args.method_samples, args.out / "inputs")
    # They optimise for the encoders' generator.
    weights = first.get("interestyle") or next(iter(first.values()))
    model = load(weights)
    lpips = load_distance(args.lpips)
    identity = load_identity(args.identity, args.face_detector)
    entries, facts, values = {}, {}, {}
    for method in args.methods:
        # IDInvert's optimisation belongs to its own encoder.
        own = first.get("idinvert", weights) if preset_of(method)[0] == "idinvert" else weights
        out = args.out / "methods" / method
        print(f"{out}: inverting", flush=True)
        facts[method] = run_method(
            method,
            own,
            args.out / "inputs",
            out,
            lpips=[args.vgg] if args.vgg else ["lpips_alex"],
            num_steps=args.num_steps,
        )
        values[method] = measure_method(
            out,
            args.data,
            split=args.split,
            count=num_images,
            shape=model.input_shape,
            lpips=lpips,
            identity=identity,
            model=None if facts[method]["tuned"] else load(own),
        )
        seconds = facts[method]["seconds_per_image"]
        shape = model.input_shape
        entries[method] = as_encoder(values[method], seconds, shape, str(args.data))
    named = [{row_of(method): own for method, own in x.items()} for x in (entries, facts)]
    return named[0], named[1], masked_tests(values)


def row_of(method: str) -> str:
    """A method's key in the results; IDInvert's optimisation and its encoder are two rows."""
    return method + OPTIMISED if method in ROWS else method


def masked_tests(values: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """{method: {metric: paired test}} of interest-masked forms against whole ones, by image."""
    found: dict[str, Any] = {}
    for method in values:
        whole = method.removesuffix(MASKED)
        if whole != method and whole in values:
            names = [name for name in COMPARED if name in values[method]]
            found[row_of(whole)] = {n: paired(values[method][n], values[whole][n]) for n in names}
    return found


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; `overrides` holds the --config.field=value ones."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--config.field=value changes a field of the config in every trained row.",
    )
    parser.add_argument("--data", required=True, metavar="NAME_OR_DIR")
    add_out_option(parser)
    parser.add_argument("--split", default="test", help="that is measured on (default test)")
    parser.add_argument("--num-samples", type=count, help="first images of it (default all)")
    parser.add_argument(
        "--method-samples", type=count, default=64, help="of these, for methods (default 64)"
    )
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument("--rows", default=",".join(ROWS), help="encoders (default all six)")
    parser.add_argument(
        "--methods",
        default=",".join(METHODS),
        help=f"presets of `invert --method`, with {MASKED} behind for their masked forms; empty "
        f"for none (default {','.join(METHODS)})",
    )
    parser.add_argument(
        "--weights", action="append", default=[], metavar="ROW=DIR", help="given, not trained"
    )
    parser.add_argument(
        "--runs", action="append", default=[], type=Path, help="folder of runs to take from"
    )
    parser.add_argument("--earlier", type=Path, metavar="DIR", help="results of other seeds")
    parser.add_argument("--generator", default="avatar_generator", help="of what is trained")
    parser.add_argument("--steps", type=count, default=400, help="of each training (400)")
    parser.add_argument("--batch-size", type=count, default=16, help="default 16")
    parser.add_argument("--num-steps", type=count, help="of methods (default the preset's)")
    parser.add_argument("--vgg", metavar="DIR", help="LPIPS on VGG16, which methods look through")
    parser.add_argument("--lpips", default="lpips_alex", help="that is measured with")
    parser.add_argument("--identity", metavar="DIR", help="embedder of the ID similarity")
    parser.add_argument("--face-detector", metavar="DIR", help='MTCNN, or "none"')
    parser.add_argument("--smoke", action="store_true", help="the smallest size")
    args, overrides = parser.parse_known_args(argv)
    args.overrides = overrides
    args.weights = dict(_row_and_weights(word) for word in args.weights)
    args.rows = [row for row in args.rows.split(",") if row]
    args.method_samples = min(args.method_samples, args.num_samples or args.method_samples)
    args.methods = [method for method in args.methods.split(",") if method]
    for word in args.overrides:
        if not (word.startswith("--config.") and "=" in word):
            parser.error(f"unknown argument {word}")
        if word.removeprefix("--config.").partition("=")[0] in OWN_FIELDS:
            parser.error(f"{word}: this field is the rows' own or has an option of its own")
    if args.smoke:
        args.steps, args.batch_size, args.seeds = 2, 8, args.seeds[:2]
        args.num_samples, args.num_steps = args.num_samples or 4, args.num_steps or 2
    return args


def _row_and_weights(word: str) -> tuple[str, str]:
    row, _, weights = word.partition("=")
    if row not in ROWS or not weights:
        raise InputError(f"--weights: {word!r}, expected ROW=DIR, ROW one of {', '.join(ROWS)}")
    return row, weights


def _check(args: argparse.Namespace) -> None:
    unknown = [row for row in args.rows if row not in ROWS]
    if unknown or not args.rows:
        raise InputError(f"--rows: {unknown or 'none'}, expected of {', '.join(ROWS)}")
    for method in args.methods:
        preset_of(method)
    stray = [row for row in args.weights if row not in args.rows]
    if stray:
        raise InputError(f"--weights: {stray[0]} is not of --rows")
    wanting = [m for m in args.methods if preset_of(m)[0].startswith(("image2", "idinvert"))]
    if wanting and not args.vgg:
        raise InputError(f"--vgg: {wanting[0]} looks through VGG16, expected --vgg=DIR")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`), or the status of a failed command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(argv), program="table_1")


def _run(argv: Sequence[str]) -> int:
    args = parse(argv)
    _check(args)
    trained = [row for row in args.rows if row not in args.weights]
    setting: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.table_1", *argv]),
        "data": str(args.data),
        "seeds": args.seeds,
        "trained": trained,
        "given": {row: str(path) for row, path in args.weights.items()},
        "calls": [],
        "git_commit": git_commit(),
        "versions": library_versions(),
    }
    setting |= {name: getattr(args, name) for name in SHARED if name not in setting}
    earlier = read_earlier(args.earlier, setting) if args.earlier else None
    try:
        entries, mean_latent, first = measure_encoders(args)
    except CommandFailedError as error:
        print(f"table_1: error: {error}", file=sys.stderr)
        return error.status
    optimised, facts, tests = measure_methods(first, args)
    setting["num_images"] = _num_images(args)
    setting["method_images"] = min(args.method_samples, setting["num_images"])
    results: dict[str, Any] = {
        "measured": entries | {method: [entry] for method, entry in optimised.items()},
        "mean_latent": mean_latent,
        "interest_masks": tests,
        "setting": setting | {"methods": facts},
    }
    if earlier is not None:
        results = join(earlier, results)
    labels = {
        row: ROWS.get(row) or label_of(row.removesuffix(OPTIMISED)) for row in results["measured"]
    }
    summary = {**summarize(results["measured"], labels, results["mean_latent"]), **results}
    with output_folder(args.out) as folder:
        write_json(folder / "metrics.json", summary)
        (folder / "table.md").write_text(markdown(summary), encoding="utf-8")
        draw_trade_off(summary, folder / "trade_off.png")
        sheet = args.out / "evaluation" / f"seed{args.seeds[0]}" / "figures" / "comparison.png"
        if sheet.is_file():
            shutil.copyfile(sheet, folder / "images.png")
    print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"written to {args.out}: table.md, metrics.json, trade_off.png")
    return 0


def _num_images(args: argparse.Namespace) -> int:
    first = args.out / "evaluation" / f"seed{args.seeds[0]}" / "metrics.json"
    return int(read_json(first)["num_images"])


if __name__ == "__main__":
    sys.exit(main())
