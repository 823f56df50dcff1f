"""What the reader of avatars and the CLIP of avatars know of held-out avatars.

    python -m experiments.reader_report --data=data/avatars --out=docs/results/readers

The reader: of each attribute, the share of avatars of which it names the right kind. The CLIP: for
each phrase of its captions, "a face with ...", whether the avatar that fits best shows it, and the
average precision of all avatars in the order in which they fit. Writes `table.md` and
`report.json`.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments.report_files import write_report
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.avatars.captions import captions_of_style
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.data.pipeline import evaluation_batches
from interestyle_jax.data.pixels import to_float
from interestyle_jax.editing.clip import Clip, load_clip
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.exit_status import run_command

STYLE, BATCH_SIZE = "toon-head", 64


def read_clean(
    data: str, split: str, num_samples: int | None
) -> tuple[Float[np.ndarray, "N R R 3"], Float[np.ndarray, "N F"]]:
    """Avatars without obstacles [N, R, R, 3] in [-1, 1], and their factors [N, F]."""
    images, factors = [], []
    for batch in evaluation_batches(
        data, split, batch_size=BATCH_SIZE, fields=("clean", "factors"), num_samples=num_samples
    ):
        real = np.asarray(batch["valid"], bool) if "valid" in batch else slice(None)
        images.append(to_float(batch["clean"][real]))
        factors.append(batch["factors"][real])
    return np.concatenate(images), np.concatenate(factors)


def reader_accuracies(
    reader: AttributeReader,
    images: Float[np.ndarray, "N R R 3"],
    factors: Float[np.ndarray, "N F"],
) -> dict[str, float]:
    """{attribute: share of N images of which the likeliest kind is the true one}."""
    names = factors_of_style(STYLE).names
    read, found = reader.read_all(images, batch_size=BATCH_SIZE), {}
    for attribute, kinds in read.chances.items():
        base = attribute.removesuffix("_colour")
        columns = [names.index(f"{base}={kind}") for kind in kinds]
        true = [list(kinds)[i] for i in factors[:, columns].argmax(axis=1)]
        found[attribute] = float(
            np.mean([a == b for a, b in zip(read.labels(attribute), true, strict=True)])
        )
    return found


def phrase_retrieval(
    clip: Clip, images: Float[np.ndarray, "N R R 3"], factors: Float[np.ndarray, "N F"]
) -> dict[str, dict[str, float]]:
    """{phrase: "first", 1 where the image that fits best shows it, "precision", "share"}.

    "precision" is the average precision over the images, "share" that of images which show it: the
    precision of a blind guess. Phrases that no image shows are left out.
    """
    captions = captions_of_style(STYLE)
    true = np.asarray(captions.true_phrases(jnp.asarray(factors)))
    parts = range(0, len(images), BATCH_SIZE)
    of_images = np.concatenate([clip.image_features(images[i : i + BATCH_SIZE]) for i in parts])
    texts = [f"a face with {phrase}" for phrase in captions.phrases]
    fits = np.asarray(clip.text_features(texts)) @ of_images.T
    return {
        phrase: {
            "first": float(shown[np.argmax(fit)]),
            "precision": average_precision(fit, shown),
            "share": float(shown.mean()),
        }
        for phrase, fit, shown in zip(captions.phrases, fits, true.T, strict=True)
        if shown.any()
    }


def average_precision(fit: Float[np.ndarray, " N"], shown: Bool[np.ndarray, " N"]) -> float:
    """The mean, over the images that show something, of the precision down to each of them."""
    shown = shown[np.argsort(-fit, kind="stable")]
    precision = np.cumsum(shown) / np.arange(1, len(shown) + 1)
    return float(precision[shown].mean())


def markdown(report: Mapping[str, Any]) -> str:
    """The report as two tables."""
    reader, phrases = report["reader"], report["clip"]
    lines = [
        f"{report['num_images']} held-out avatars.",
        "",
        "| attribute | the reader is right |",
        "|---|---:|",
        *(f"| {name} | {share:.1%} |" for name, share in reader.items()),
        f"| mean | {np.mean(list(reader.values())):.1%} |",
        "",
        "| phrase | the CLIP's best image shows it | average precision | shown by |",
        "|---|---|---:|---:|",
    ]
    for phrase, x in phrases.items():
        first = "yes" if x["first"] else "no"
        lines.append(f"| {phrase} | {first} | {x['precision']:.3f} | {x['share']:.1%} |")
    mean = {key: np.mean([x[key] for x in phrases.values()]) for key in ("first", "precision")}
    lines.append(f"| mean | {mean['first']:.1%} | {mean['precision']:.3f} | |")
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="NAME_OR_DIR")
    add_out_option(parser)
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-samples", type=count, help="first images of it (default all)")
    parser.add_argument("--reader", default="avatar_attributes", metavar="WEIGHTS")
    parser.add_argument("--clip", default="avatar_clip", metavar="WEIGHTS")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(parse(argv), argv), program="reader_report")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    reader, clip = AttributeReader(args.reader), load_clip(args.clip)
    images, factors = read_clean(args.data, args.split, args.num_samples)
    report = {
        "command": shlex.join(["python", "-m", "experiments.reader_report", *argv]),
        "num_images": len(images),
        "reader": reader_accuracies(reader, images, factors),
        "clip": phrase_retrieval(clip, images, factors),
    }
    write_report(args.out, report, markdown(report), figures="report.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
