r"""Fig. 6 in the avatar world: optimisation with and without interest masks, beside IntereStyle.

    python -m experiments.figure_6 --data=data/avatars --out=runs/figure_6 \
        --weights=avatar_interestyle --vgg=weights/lpips_vgg --num-samples=64

Inverts the first obstructed test avatars, and the same ones without obstacles, by Image2StyleGAN
and Image2StyleGAN++, each on whole images and on the interest region alone, and by encoders. Writes
`obstacles.png` (the figure: inversions side by side, and the obstacle's place enlarged) and
`figure_6.json` with `table.md`: distortion and leakage of each, paired tests of the masked forms
against the whole ones, and the encoder's time against Image2StyleGAN's at --timed-steps
(`experiments.time_ratio` measures it alone). The same call continues after a stop.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.optimised_rows import (
    MASKED,
    as_encoder,
    label_of,
    measure_method,
    paired,
    paired_cells,
    preset_of,
    run_method,
    write_inputs,
)
from experiments.paper_figures import chosen, invert, obstacle_grid, read_avatars
from experiments.table_1_summary import METRICS, value_of
from experiments.time_ratio import NUM_IMAGES, NUM_STEPS, sentence, timing
from experiments.trainings import CommandFailedError, evaluate
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.images import read_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.metrics import load_distance
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.optimisation.optimiser import has_noise
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.json_file import write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.training.run_directory import git_commit

METHODS = ("image2stylegan", "image2stylegan-plus-plus")
COMPARED = ("leakage/lpips", "leakage/l2", "interest/lpips")
SHOWN = ("interest_l2", "interest_lpips", "whole_lpips", "leakage_l2", "leakage_lpips")
ENCODER = "IntereStyle"
BATCH_SIZE = 8


def method_images(folder: Path) -> np.ndarray:
    """A method's inversions, [n, H, W, 3] in [-1, 1]."""
    names = LatentFile(folder).names
    return np.stack([to_float(read_image(folder / f"{name}.png")) for name in names])


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(
        prog="figure_6", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="avatar data set")
    add_out_option(parser)
    parser.add_argument("--weights", default="avatar_interestyle", help="encoder and generator")
    parser.add_argument(
        "--encoder", action="append", default=[], metavar="NAME=DIR", help="another one beside it"
    )
    parser.add_argument("--vgg", required=True, metavar="DIR", help="LPIPS on VGG16")
    parser.add_argument(
        "--methods",
        default=",".join(METHODS),
        help=f"presets; each also runs with interest masks (default {','.join(METHODS)})",
    )
    parser.add_argument("--num-samples", type=count, default=64, help="avatars (64)")
    parser.add_argument("--num-steps", type=count, help="of the methods (default the presets')")
    parser.add_argument("--rows", type=count, default=6, help="of the figure (6)")
    timed = parser.add_argument_group("the timing, as experiments.time_ratio")
    timed.add_argument("--timed-steps", type=count, default=NUM_STEPS, help="default 1000")
    timed.add_argument("--timed-images", type=count, default=NUM_IMAGES, help="default 8")
    args = parser.parse_args(argv)
    args.methods = [method for method in args.methods.split(",") if method]
    args.encoders = {ENCODER: args.weights}
    for word in args.encoder:
        name, _, weights = word.partition("=")
        if not weights or name in args.encoders:
            parser.error(f"--encoder={word}: expected a name of its own and weights, NAME=DIR")
        args.encoders[name] = weights
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(argv), program="figure_6")


def _run(argv: Sequence[str]) -> int:
    args = parse(argv)
    for method in args.methods:
        if preset_of(method)[1]:
            raise InputError(f"--methods: {method!r}, expected presets, whose masked forms follow")
    options = [f"--data={args.data}", f"--num-samples={args.num_samples}"]
    try:
        measured = evaluate(args.encoders, args.out / "encoders", options, what="evaluating")
    except CommandFailedError as error:
        print(f"figure_6: error: {error}", file=sys.stderr)
        return error.status
    num_images = write_inputs(args.data, "test", args.num_samples, args.out / "inputs")
    model, lpips = load(args.weights), load_distance("lpips_alex")
    entries, values, facts = dict(measured["encoders"]), {}, {}
    shape = model.input_shape
    methods = [form for method in args.methods for form in (method, method + MASKED)]
    for method in methods:
        out = args.out / "methods" / method
        print(f"{out}: inverting", flush=True)
        facts[method] = run_method(
            method,
            args.weights,
            args.out / "inputs",
            out,
            lpips=[args.vgg],
            num_steps=args.num_steps,
        )
        values[method] = measure_method(
            out, args.data, split="test", count=num_images, shape=shape, lpips=lpips
        )
        seconds = facts[method]["seconds_per_image"]
        entries[label_of(method)] = as_encoder(values[method], seconds, shape, args.data)
    summary = {
        "command": shlex.join(["python", "-m", "experiments.figure_6", *argv]),
        "data": args.data,
        "weights": args.weights,
        "num_images": num_images,
        "noise": has_noise(model),
        "rows": entries,
        "methods": facts,
        "interest_masks": {
            method: {n: paired(values[method + MASKED][n], values[method][n]) for n in COMPARED}
            for method in args.methods
        },
        "timing": timing(
            args.out,
            data=args.data,
            weights=args.weights,
            vgg=args.vgg,
            num_steps=args.timed_steps,
            num_images=args.timed_images,
            command=["python", "-m", "experiments.figure_6", *argv],
        ),
        "git_commit": git_commit(),
        "versions": library_versions(),
    }
    avatars = read_avatars(Path(args.data), num_images, num_images)
    columns = {label_of(m): method_images(args.out / "methods" / m / "images") for m in methods}
    for name, weights in args.encoders.items():
        columns[name] = invert(weights, avatars["image"], BATCH_SIZE)
    grid = obstacle_grid(avatars, chosen(avatars, args.rows), columns)
    with output_folder(args.out) as folder:
        Image.fromarray(grid).save(folder / "obstacles.png", optimize=True)
        write_json(folder / "figure_6.json", summary)
        (folder / "table.md").write_text(markdown(summary), encoding="utf-8")
    print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"written to {args.out}: obstacles.png, figure_6.json, table.md")
    return 0


def markdown(summary: Mapping[str, Any]) -> str:
    """The content of table.md, of what `figure_6.json` holds."""
    lines = [
        "# Fig. 6 in the avatar world",
        "",
        f"`{summary['command']}`",
        "",
        f"The first {summary['num_images']} test avatars of `{summary['data']}`, with obstacles "
        "and without. Leakage: how far the obstacle changes the inversion of what it leaves free. "
        f"Noise maps: {'as each method' if summary['noise'] else 'none, as this generator'} has. "
        f"Commit {summary['git_commit']}.",
        "",
        "| | " + " | ".join(METRICS[m][0] for m in SHOWN) + " | s / image |",
        "|---|" + "---:|" * (len(SHOWN) + 1),
    ]
    for row, entry in summary["rows"].items():
        cells = [_number(value_of(entry, m), METRICS[m][2]) for m in SHOWN]
        cells.append(f"{entry['seconds_per_image']:.3g}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The masked form minus the whole one, over the images (paired, two-sided):",
        "",
        "| method | metric | difference | p (t) | p (Wilcoxon) |",
        "|---|---|---:|---:|---:|",
    ]
    for method, tests in summary["interest_masks"].items():
        for name, test in tests.items():
            lines.append(paired_cells(label_of(method), name, test))
    return "\n".join([*lines, "", sentence(summary["timing"]), ""])


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
