r"""Figures of the paper in the avatar world, from trained encoders.

    python -m experiments.paper_figures --data=data/avatars --out=reports/paper_figures \
        --weights=runs/psp/weights --weights=runs/restyle/weights --weights=avatar_interestyle \
        --raw-mask=runs/raw_mask/weights

Writes `obstacles.png` (Fig. 2 and 6: inversions of obstructed avatars side by side, and the
obstacle's place enlarged), with --raw-mask also `dilation.png` (Fig. 5 and 7: where the face of
the inversion differs from the avatar's own, with the encoder of the last --weights, trained with a
dilated mask, and with one trained with the raw mask), and `figures.json`. The variance of
latents (Fig. 3 and 10) is what `interestyle evaluate` draws of the same weights.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.pipeline import evaluation_batches
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.evaluation.boundary import face_regions, red_overlay, wrong_pixels
from interestyle_jax.evaluation.grids import draw_grid
from interestyle_jax.exit_status import run_command
from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder

FIELDS = ("image", "clean", "face_mask", "face_mask_full", "obstacle")
# Of the face, at least, where an avatar is shown: less is no obstacle to an inversion.
COVERED = 0.12
CROP = 28


def read_avatars(data: Path, num_samples: int, batch_size: int) -> dict[str, np.ndarray]:
    """The first test avatars: images float [n, H, W, 3] in [-1, 1], masks bool [n, H, W]."""
    batches = evaluation_batches(
        data, "test", batch_size=batch_size, fields=FIELDS, num_samples=num_samples
    )
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        valid = batch["valid"]
        for name in (*FIELDS, "id"):
            parts.setdefault(name, []).append(batch[name][valid])
    found = {name: np.concatenate(values) for name, values in parts.items()}
    for name in ("image", "clean"):
        found[name] = to_float(found[name])
    for name in ("face_mask", "face_mask_full"):
        found[name] = found[name][..., 0] > 127
    return found


def chosen(avatars: dict[str, np.ndarray], rows: int) -> list[int]:
    """The first avatar of each kind of obstacle that covers enough of its face, by index."""
    face = avatars["face_mask_full"].sum((1, 2))
    covered = 1 - avatars["face_mask"].sum((1, 2)) / np.maximum(face, 1)
    found: dict[str, int] = {}
    for i in np.flatnonzero(covered >= COVERED):
        found.setdefault(str(avatars["obstacle"][i]), int(i))
    if not found:
        raise InputError("--num-samples: no avatar with a covered face among these")
    return sorted(found.values())[:rows]


def crop(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The square of CROP pixels whose middle is that of what is covered."""
    ys, xs = np.nonzero(covered)
    size = min(CROP, *covered.shape)
    top, left = (
        int(np.clip(round(v.mean()) - size // 2, 0, n - size))
        for v, n in zip((ys, xs), covered.shape, strict=True)
    )
    return image[top : top + size, left : left + size]


def invert(weights: str, images: np.ndarray, batch_size: int) -> np.ndarray:
    """The last inversions [n, R, R, 3] by a weight directory, clipped."""
    model = ij.load(weights)
    found = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part)), *[(0, 0)] * 3], mode="edge")
        drawn = model.invert(padded, return_images="last").images
        found.append(np.asarray(drawn)[-1][: len(part)])
    return np.clip(np.concatenate(found), -1, 1)


def obstacle_grid(
    avatars: dict[str, np.ndarray],
    rows: Sequence[int],
    inversions: dict[str, np.ndarray],
) -> np.ndarray:
    """Each avatar in two rows: whole, and the obstacle's place enlarged."""
    columns = {"input": avatars["image"], **inversions, "without obstacle": avatars["clean"]}
    drawn = []
    for i in rows:
        covered = avatars["face_mask_full"][i] & ~avatars["face_mask"][i]
        drawn.append([images[i] for images in columns.values()])
        drawn.append([crop(images[i], covered) for images in columns.values()])
    labels = [label for i in rows for label in (str(avatars["obstacle"][i]), "")]
    return draw_grid(drawn, list(columns), row_labels=labels)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        prog="paper_figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, type=Path, help="avatar data set")
    parser.add_argument("--weights", required=True, action="append", help="encoder; several")
    parser.add_argument("--name", action="append", help="of each --weights")
    parser.add_argument("--raw-mask", help="encoder trained without dilation")
    parser.add_argument("--reader", default="avatar_attributes", help="reads faces' regions")
    parser.add_argument("--num-samples", type=count, default=512)
    parser.add_argument("--batch-size", type=count, default=32)
    parser.add_argument("--rows", type=count, default=6)
    add_out_option(parser)
    args = parser.parse_args(arguments)
    args.name = args.name or [Path(weights).parent.name or weights for weights in args.weights]
    if len(set(args.name)) != len(args.weights):
        parser.error("--name: expected one of its own for each --weights")
    return args


def dilation_figure(
    args: argparse.Namespace,
    avatars: dict[str, np.ndarray],
    rows: Sequence[int],
    dilated: np.ndarray,
) -> tuple[np.ndarray, dict[str, float]]:
    """The grid, and the share of a face's pixels that are wrong, the mean over all avatars."""
    reader = AttributeReader(args.reader)
    compared = {
        "raw mask": invert(args.raw_mask, avatars["image"], args.batch_size),
        "dilated mask": dilated,
    }
    faces = avatars["face_mask_full"]
    wrong = {n: wrong_pixels(face_regions(reader, x), faces) for n, x in compared.items()}
    drawn, labels = [], ["input"]
    for name in compared:
        labels += [name, "difference"]
    for i in rows:
        cells = [avatars["image"][i]]
        for name, images in compared.items():
            cells += [images[i], red_overlay(images[i], wrong[name][i])]
        drawn.append(cells)
    # What the reader itself gets wrong, of the avatars before a plain background.
    wrong["drawn avatars"] = wrong_pixels(face_regions(reader, avatars["clean"]), faces)
    shares = {k: float((x.sum((1, 2)) / faces.sum((1, 2))).mean()) for k, x in wrong.items()}
    return draw_grid(drawn, labels), shares


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`)."""
    return run_command(lambda: _run(argv), program="paper_figures")


def _run(argv: Sequence[str] | None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parse(arguments)
    avatars = read_avatars(args.data, args.num_samples, args.batch_size)
    rows = chosen(avatars, args.rows)
    inversions = {
        name: invert(weights, avatars["image"], args.batch_size)
        for name, weights in zip(args.name, args.weights, strict=True)
    }
    facts: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.paper_figures", *arguments]),
        "weights": dict(zip(args.name, map(str, args.weights), strict=True)),
        "shown": [int(avatars["id"][i]) for i in rows],
        "num_samples": len(avatars["id"]),
    }
    with output_folder(args.out) as out:
        grid = obstacle_grid(avatars, rows, inversions)
        Image.fromarray(grid).save(out / "obstacles.png", optimize=True)
        if args.raw_mask:
            grid, shares = dilation_figure(args, avatars, rows, inversions[args.name[-1]])
            Image.fromarray(grid).save(out / "dilation.png", optimize=True)
            facts["wrong_share_of_face"] = shares
        write_json(out / "figures.json", facts)
    print(f"written to {args.out}: {', '.join(sorted(x.name for x in args.out.iterdir()))}")


if __name__ == "__main__":
    sys.exit(main())
