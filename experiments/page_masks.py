"""The page's interest masks of avatars, against those that the avatars were drawn with.

    python -m experiments.page_masks --out=docs/results/page

Test avatars with their obstacles are inverted, and masked as `interestyle serve` masks an upload:
where the reader of avatars sees face or hair both in the upload and in its inversion; beside it, by
the upload alone. Means of the intersection over union with the visible interest region, and with
the whole one, what the obstacle hides included. Writes `DIR/masks.json` and `DIR/masks.md`.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report_files import write_report
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.avatars.world import sample
from interestyle_jax.data.images import resize_image
from interestyle_jax.data.pixels import to_float, to_uint8
from interestyle_jax.evaluation.boundary import intersection_over_union
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.page.regions import AVATARS, Regions
from interestyle_jax.weights import digest

BATCH_SIZE = 25
# {what is compared with: field of `sample`}.
TRUE_MASKS = {"visible": "interest_mask", "whole": "interest_mask_full"}
SEEN = {"both": "upload and inversion", "upload": "upload alone"}


def mask_overlaps(model: Model, regions: Regions, num_avatars: int) -> dict[str, dict[str, float]]:
    """Mean IoU of masks with the drawn ones.

    Args:
      model: an encoder of avatars with its generator.
      regions: with masks of avatars.
      num_avatars: the first of the test split.

    Returns:
      {"both" or "upload": {"visible": IoU, "whole": IoU}}.
    """
    found: dict[str, dict[str, list[float]]] = {x: {y: [] for y in TRUE_MASKS} for x in SEEN}
    for start in range(0, num_avatars, BATCH_SIZE):
        numbers = range(start, min(start + BATCH_SIZE, num_avatars))
        drawn = [sample(i, split="test") for i in numbers]
        images = np.stack([resize_image(avatar["image"], model.input_shape) for avatar in drawn])
        last = model.invert(to_float(images), return_images="last").images[-1]
        for avatar, inverted in zip(drawn, to_uint8(np.asarray(last)), strict=True):
            image = avatar["image"]
            masks = {"both": regions.mask(image, inverted), "upload": regions.mask(image, image)}
            for seen, mask in masks.items():
                for name, field in TRUE_MASKS.items():
                    overlap = intersection_over_union(
                        mask[..., 0] > 127, avatar[field][..., 0] > 127
                    )
                    found[seen][name].append(0.0 if overlap is None else overlap)
    return {x: {y: float(np.mean(v)) for y, v in of.items()} for x, of in found.items()}


def markdown(overlaps: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each way to see the mask."""
    lines = ["| mask by | IoU, visible region | IoU, whole region |", "|---|---:|---:|"]
    for seen, title in SEEN.items():
        cells = " | ".join(f"{overlaps[seen][name]:.3f}" for name in TRUE_MASKS)
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="avatar_interestyle", metavar="NAME_OR_DIR")
    parser.add_argument("--num-samples", type=count, default=200, help="avatars (default 200)")
    add_out_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(parse(argv), argv), program="page_masks")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    model = load(args.weights)
    regions = Regions(AVATARS, avatars=True, resolution=model.resolution)
    overlaps = mask_overlaps(model, regions, args.num_samples)
    report: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.page_masks", *argv]),
        "weights": digest(args.weights),
        "num_avatars": args.num_samples,
        "iou": overlaps,
    }
    write_report(args.out, report, markdown(overlaps), figures="masks.json", table="masks.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
