"""What a generator draws, and how far its samples are from held-out images.

    python -m experiments.generator_report --weights=runs/avatar_generator/weights \
        --data=data/avatars_clean --training=runs/avatar_generator --out=reports/avatar_generator

The Fréchet distance here is that of LPIPS features, **not FID** (`evaluation/frechet.py`). It is
biased upwards for few images, so every figure stands beside the same figure between real images
at the same size.
"""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.generator_figures import (
    COLUMNS,
    TRUNCATION_PSI,
    draw_samples,
    interpolation_strips,
    nearest_grid,
    samples_grid,
    strips_grid,
)
from experiments.nearest import nearest_images
from experiments.training_curve import plot_training_curve, read_metrics
from interestyle_jax.commands.options import Parser, add_out_option
from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.data.images import save_image
from interestyle_jax.data.pipeline import evaluation_batches
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.frechet import feature_frechet_distance, image_features
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import load
from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder
from interestyle_jax.weights import load_weights, resolve_weights

NOT_FID = (
    "Fréchet distance of spatially averaged LPIPS features of the last compared layer. A network "
    "that the training's loss used flatters it. It is not FID (no Inception network), and compares "
    "only with figures of the same image size and number of images: fewer images give a larger "
    "figure, also between real ones."
)


def generator_report(
    weights: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    num_samples: int = 2000,
    num_nearest: int = 256,
    training: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 50,
    lpips: Sequence[str | Path] = ("lpips_alex",),
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures a generator's samples against the held-out images and writes the results to `out`.

    Samples are G(f(z)) with truncation_psi 1 and the stored noise, z standard normal from `seed`,
    rounded to 8 bits as the held-out images are (split "test", field `clean`).

    Args:
      weights: name or directory of weights with a generator.
      data: a TFDS data set directory of images of the generator's size.
      out: folder for `report.json`, `table.md`, `samples.png`, `interpolation.png`, `nearest.png`
        and `curve.png`.
      num_samples: samples, and held-out images at most; the smaller number counts for both.
      num_nearest: samples, and as many held-out images, that are compared with every training
        image; 0 leaves the comparison out.
      training: directory of the training run, for the curve.
      seed: of z.
      batch_size: images a compiled call.
      lpips: names or directories of LPIPS weights; the distance is measured in the features of
        each, under its directory's name.
      command: the command line, for the records.

    Returns:
      The content of report.json.

    Raises:
      InputError: unknown weights or data, a part missing, images of another size, or too few.
    """
    begun = time.monotonic()
    if num_samples < 4:
        raise InputError(f"num_samples: {num_samples}, expected at least 4 (two halves of two)")
    if num_nearest < 0:
        raise InputError(f"num_nearest: {num_nearest}, expected 0 or more")
    model = load(weights)
    lines = None if training is None else read_metrics(training)
    held_out = np.concatenate(list(_clean(data, "test", batch_size, num_samples)))
    size = model.synthesize(model.mean_latent()).shape[1]
    if held_out.shape[1:3] != (size, size):
        height, width = held_out.shape[1:3]
        raise InputError(f"{data}: images of {height}x{width}, expected {size}x{size}")
    if len(held_out) < 4:
        raise InputError(f"{data}: {len(held_out)} test images, expected at least 4")
    samples = draw_samples(model, len(held_out), seed=seed, batch_size=batch_size)
    train = list(_clean(data, "train", batch_size, None if num_nearest else len(held_out)))
    images = {
        "samples": samples,
        "held_out": held_out,
        "training": np.concatenate(train[: -(-len(held_out) // batch_size)])[: len(held_out)],
    }
    frechet = {}
    for path in lpips:
        network, variables = load_weights(resolve_weights(path)).part("lpips")
        variables = jax.device_put(variables)
        features = {
            name: image_features(network, variables, x, batch_size=batch_size)
            for name, x in images.items()
        }
        frechet[Path(path).name] = frechet_figures(features)
    sampling = {"seed": seed, "batch_size": batch_size}
    truncated = draw_samples(
        model, min(2 * COLUMNS, len(held_out)), truncation_psi=TRUNCATION_PSI, **sampling
    )
    report = {
        "command": shlex.join(command),
        "weights": str(model.directory),
        "training": model.metadata.get("extra", {}).get("training"),
        "generator_parameters": _count(model.variables["generator"]["params"]),
        "data": {"directory": str(data), "fingerprint": fingerprint(data)},
        "sampling": {"seed": seed, "truncation_psi": 1.0, "noise": "const"},
        "lpips_feature_frechet": frechet | {"note": NOT_FID},
        "nearest_training_image": None,
        "last_logged": None if lines is None else _latest(lines),
    }
    with output_folder(Path(out)) as folder:
        save_image(folder / "samples.png", samples_grid(samples, held_out, truncated))
        strips = interpolation_strips(model, **sampling)
        save_image(folder / "interpolation.png", strips_grid(strips))
        if num_nearest:
            of_samples = nearest_images(samples[:num_nearest], train)
            of_held_out = nearest_images(held_out[:num_nearest], train)
            save_image(folder / "nearest.png", nearest_grid(samples, of_samples))
            report["nearest_training_image"] = {
                "queries": len(of_samples.distance),
                "training_images": sum(map(len, train)),
                "samples": _quantiles(of_samples.distance),
                "held_out": _quantiles(of_held_out.distance),
                "note": "Mean squared pixel difference in [-1, 1] to the nearest training image "
                "or its mirror image. Samples that were copies would be much nearer than held-out "
                "images are.",
            }
        if lines is not None:
            plot_training_curve(lines, folder / "curve.png")
        report["seconds"] = time.monotonic() - begun
        write_json(folder / "report.json", report)
        (folder / "table.md").write_text(markdown(report), encoding="utf-8")
    return report


def frechet_figures(features: dict[str, Float[np.ndarray, "_ D"]]) -> dict[str, Any]:
    """Distances at the full and at half the number of images, samples beside real ones.

    Args:
      features: "samples", "held_out" and "training", [n, D] each; there may be fewer "training".

    Returns:
      {"full": {"images": n, "samples_vs_held_out", "training_vs_held_out"},
       "half": {"images": n // 2, "samples_vs_held_out", "held_out_halves"}}. At half the number
      the samples' figure is the mean of the two disjoint pairs of halves. `training_vs_held_out` is
      null where there are fewer than n training images.
    """
    samples, held_out, training = (features[k] for k in ("samples", "held_out", "training"))
    count, half = len(held_out), len(held_out) // 2
    first, second = slice(0, half), slice(half, 2 * half)
    halves = [feature_frechet_distance(samples[s], held_out[s]) for s in (first, second)]
    enough = len(training) >= count
    return {
        "full": {
            "images": count,
            "samples_vs_held_out": feature_frechet_distance(samples, held_out),
            "training_vs_held_out": feature_frechet_distance(training[:count], held_out)
            if enough
            else None,
        },
        "half": {
            "images": half,
            "samples_vs_held_out": float(np.mean(halves)),
            "held_out_halves": feature_frechet_distance(held_out[first], held_out[second]),
        },
    }


def markdown(report: dict[str, Any]) -> str:
    """The report's figures as Markdown."""
    frechet = dict(report["lpips_feature_frechet"])
    note = frechet.pop("note")
    lines = [
        f"`{report['command']}`",
        "",
        f"| LPIPS-feature Fréchet distance (not FID) | images | {' | '.join(frechet)} |",
        "|---|---:|" + "---:|" * len(frechet),
        _row("samples, held-out avatars", frechet, "full", "samples_vs_held_out"),
        _row("training avatars, held-out avatars", frechet, "full", "training_vs_held_out"),
        _row("samples, held-out avatars (two pairs)", frechet, "half", "samples_vs_held_out"),
        _row("two halves of the held-out avatars", frechet, "half", "held_out_halves"),
        "",
        note,
        "",
    ]
    nearest = report["nearest_training_image"]
    if nearest:
        own, other = nearest["samples"], nearest["held_out"]
        lines += [
            f"Nearest of {nearest['training_images']} training images, for "
            f"{nearest['queries']} of each:",
            "",
            "| L2 to the nearest training image | smallest | 5 % | median |",
            "|---|---:|---:|---:|",
            *(
                f"| {name} | {q['min']:.4f} | {q['5%']:.4f} | {q['median']:.4f} |"
                for name, q in (("samples", own), ("held-out avatars", other))
            ),
            "",
            nearest["note"],
            "",
        ]
    return "\n".join(lines)


def _row(label: str, frechet: dict[str, Any], size: str, name: str) -> str:
    entries = [figures[size] for figures in frechet.values()]
    values = ["–" if entry[name] is None else f"{entry[name]:.4g}" for entry in entries]
    count = entries[0]["images"]
    return f"| {label} | {count} + {count} | {' | '.join(values)} |"


def _clean(data: str | Path, split: str, batch_size: int, count: int | None) -> Iterator:
    """uint8 [b, H, W, 3]: the field `clean`, without padding."""
    batches = evaluation_batches(
        data, split, batch_size=batch_size, fields=("clean",), num_samples=count
    )
    for batch in batches:
        yield batch["clean"][batch["valid"]]


def _latest(lines: list[dict[str, float]]) -> dict[str, float]:
    """The last value of every metric."""
    latest: dict[str, float] = {}
    for line in lines:
        latest |= line
    return latest


def _quantiles(values: np.ndarray) -> dict[str, float]:
    low, middle = np.quantile(values, (0.05, 0.5))
    return {"min": float(values.min()), "5%": float(low), "median": float(middle)}


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 or 1 with one line on stderr (`exit_status`)."""
    return run_command(lambda: _run(argv), program="generator_report")


def _run(argv: Sequence[str] | None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    name = "experiments.generator_report"
    parser = Parser(prog=f"python -m {name}", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--data", required=True, metavar="DIR", help="with the field clean")
    add_out_option(parser)
    parser.add_argument("--samples", type=int, default=2000, help="default 2000")
    parser.add_argument(
        "--nearest", type=int, default=256, help="samples compared with all training images"
    )
    parser.add_argument("--training", metavar="RUNDIR", help="the training run, for the curve")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument(
        "--lpips", action="append", metavar="NAME_OR_DIR", help="features; again for others"
    )
    args = parser.parse_args(argv)
    generator_report(
        args.weights,
        args.data,
        args.out,
        num_samples=args.samples,
        num_nearest=args.nearest,
        training=args.training,
        seed=args.seed,
        batch_size=args.batch_size,
        lpips=args.lpips or ("lpips_alex",),
        command=["python", "-m", name, *argv],
    )
    print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"written to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
