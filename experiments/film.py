"""A film of an avatar, inverted and edited frame by frame and smoothed, measured against the truth.

    python -m experiments.film --out=docs/results/film

Draws `experiments.avatar_film`; what a landmarker finds in it is the truth with noise. Faces are
pasted back by the interest region that a reader of avatars sees. Each film is then looked at
through the true squares, in the interest region. Writes `metrics.json`, `table.md`, `strip.png` and
`slices.png`.
"""

import argparse
import hashlib
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from experiments.avatar_film import draw_film, found_points, save_film
from experiments.film_metrics import measure, quad_errors, seen_through
from interestyle_jax.commands.options import Parser, add_out_option, count, natural
from interestyle_jax.data.images import central_square, resize_image, save_image
from interestyle_jax.data.pixels import to_float
from interestyle_jax.editing.clip import load_clip
from interestyle_jax.evaluation import grids
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import load
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.film_inversions import MaskOf
from interestyle_jax.jobs.film_smoothing import FRAME_BY_FRAME, Smoothing
from interestyle_jax.jobs.film_tuning import Tuning
from interestyle_jax.jobs.films import edit_film
from interestyle_jax.json_file import parse_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.ffhq_alignment import face_quad
from interestyle_jax.video.films import read_frames, scan_film
from interestyle_jax.video.scenes import runs_of
from interestyle_jax.video.smoothing import axes_of

# What is smoothed, and whether the generator is tuned on the frames.
VARIANTS = {
    "frame by frame": (FRAME_BY_FRAME, False),
    "squares": (Smoothing(latents=0), False),
    "squares, latents (default)": (Smoothing(), False),
    "squares, latents, fine rows shared": (Smoothing(shared_rows=None), False),
    "squares, latents by 3 frames": (Smoothing(latents=3), False),
    "squares, latents, tuned generator": (Smoothing(), True),
}
SHOWN_ROWS = (
    "frame by frame",
    "squares, latents (default)",
    "squares, latents, tuned generator",
)
SHOWN = (0.02, 0.17, 0.33, 0.42, 0.5, 0.58, 0.7, 0.9)


class KnownPoints:
    """A landmarker that knows each frame's points."""

    name = "truth with noise"

    def __init__(self, frames: Sequence[np.ndarray], points: Sequence[np.ndarray | None]):
        """Takes the frames as they are decoded, and the points [4, 2] of each."""
        self._points = {_digest(f): p for f, p in zip(frames, points, strict=True)}

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """The face of a frame, or none."""
        points = self._points[_digest(image)]
        return [] if points is None else [Face(np.zeros(4), 1.0, points)]


def interest_reader(reader: AttributeReader) -> MaskOf:
    """Masks of interest regions as a reader of avatars sees them."""

    def mask(image: np.ndarray, name: str) -> np.ndarray:
        del name
        small = resize_image(image, (reader.resolution,) * 2)
        shares = reader(to_float(small)[None]).regions["interest"][0]
        return np.where(shares >= 0.5, 255, 0).astype(np.uint8)[..., None]

    return mask


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    lines = [
        f"Avatar {report['index']} in {report['num_frames']} frames, landmarks with noise of "
        f"{report['noise']:g} pixels where the head's square has about {report['side']:.0f}; "
        f"{report['direction']} at {report['strength']:g}.",
        "",
        "| smoothed | squares: distance from the truth, % | squares: jitter, % | latents: jitter |",
        "|---|---:|---:|---:|",
    ]
    for name, x in report["variants"].items():
        quads, jitter = x["quad_errors"], x["jitter"]
        lines.append(
            f"| {name} | {quads['used']:.2f} | {100 * jitter['quads']['smoothed']:.2f} | "
            f"{jitter['latents']['smoothed']:.2f} |"
        )
    lines += [
        "",
        "Of what each film shows in the true squares, in the interest region, where a face was "
        "found. Flicker: root mean square of second differences over time of what differs from the "
        "avatar. CLIP's TL and TG: how alike the frames are in the features of the avatars' CLIP, "
        "neighbours and all, as shares of how alike the avatar's own are (no identity network "
        "knows avatars).",
    ]
    columns = {
        "inversion": "LPIPS to the truth, clear | LPIPS, obstructed",
        "edit": "attribute seen, mean | attribute, least",
    }
    for key, more in columns.items():
        lines += [
            "",
            f"| {key} | flicker, grey levels | LPIPS to the next frame | CLIP's TL | CLIP's TG | "
            f"{more} |",
            "|---|" + "---:|" * 6,
        ]
        for name, x in (report["references"] | report["variants"]).items():
            own = x.get(key, x)
            last = own["lpips"].values() if key == "inversion" else own["attribute"].values()
            identity = own["clip_identity"]
            lines.append(
                f"| {name} | {own['flicker']:.2f} | {own['lpips_to_next']:.4f} | "
                f"{identity['local']:.4f} | {identity['global']:.4f} | "
                + " | ".join(f"{value:.4f}" for value in last)
                + " |"
            )
    return "\n".join(lines) + "\n"


def _strip(films: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """A row a film, some frames each, their middle as wide as they are high."""
    rows = []
    for frames in films.values():
        chosen = [central_square(frames[int(share * len(frames))]) for share in SHOWN]
        rows.append([to_float(square) for square in chosen])
    labels = [f"at {share:.0%}" for share in SHOWN]
    return grids.draw_grid(rows, labels, row_labels=list(films))


def _draw_slices(films: Mapping[str, np.ndarray], path: Path) -> None:
    """The middle column of each film's squares over time, as a figure; what flickers is jagged."""
    figure = Figure(figsize=(10, 3.6 * -(-len(films) // 2)), layout="constrained")
    axes = list(figure.subplots(-(-len(films) // 2), 2, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, crops) in zip(axes, films.items(), strict=False):
        middle = crops[:, :, crops.shape[2] // 2].swapaxes(0, 1)
        axis.imshow(middle, interpolation="nearest")
        axis.set_title(name)
    figure.savefig(path, dpi=100)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_out_option(parser)
    parser.add_argument("--weights", default="avatar_interestyle", metavar="NAME_OR_DIR")
    parser.add_argument("--index", type=int, default=6, help="of the held-out avatar")
    parser.add_argument("--num-frames", type=count, default=100)
    parser.add_argument("--noise", type=float, default=1.0, help="of landmarks, in pixels")
    parser.add_argument("--obstacle", default="hand")
    parser.add_argument("--direction", default="beard")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--attribute", default="beard", help="that the direction brings")
    parser.add_argument("--tune-passes", type=natural, default=8, help="0 leaves the row out")
    parser.add_argument("--steps", type=count, help="iterations N")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(parse(argv), argv), program="film")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    film = draw_film(args.index, args.num_frames, obstacle=args.obstacle)
    points = found_points(film, noise=args.noise)
    reader = AttributeReader()
    networks = {"reader": reader, "lpips": load("lpips_alex"), "clip": load_clip("avatar_clip")}
    # Frames in which the face is not found count for nobody: frame by frame they stay.
    runs = runs_of([p is not None for p in points], ())
    report: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.film", *argv]),
        "index": args.index,
        "num_frames": args.num_frames,
        "noise": args.noise,
        "side": float(np.median(2 * np.hypot(*axes_of(film.quads)[:, 2:].T))),
        "direction": args.direction,
        "strength": args.strength,
        "versions": library_versions(),
    }
    found = np.full((len(points), 4, 2), np.nan)
    films: dict[str, list[np.ndarray]] = {"film": list(film.frames)}
    slices = {"the avatar itself": film.clean}

    def measured(crops: np.ndarray) -> dict[str, Any]:
        return measure(crops, film, runs, networks=networks, attribute=args.attribute)

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "film.mp4"
        save_film(source, film.frames)
        slices["the film, with its obstacle"] = seen_through(source, film)
        report["references"] = {name: measured(crops) for name, crops in slices.items()}
        report["variants"] = {}
        landmarker = KnownPoints(list(read_frames(scan_film(source))), points)
        for i, own in enumerate(points):
            if own is not None:
                found[i] = face_quad(own)
        for name, (smoothing, tuned) in VARIANTS.items():
            if tuned and not args.tune_passes:
                continue
            # What does not depend on the smoothing is not done again.
            kind = "raw" if smoothing.quads == 0 else "tuned" if tuned else "smoothed"
            out = Path(folder) / kind
            told = edit_film(
                args.weights,
                source,
                out,
                edits=[args.direction],
                strengths=[0.0, args.strength],
                num_iterations=args.steps,
                alignment=Alignment(paste_back=True, feather=0.04),
                smoothing=smoothing,
                tuning=Tuning(args.tune_passes if tuned else 0),
                landmarker=landmarker,
                paste_mask=interest_reader(reader),
            )
            inverted = parse_json((out / "inversions/report.json").read_bytes())
            own_films = dict(zip(["inversion", "edit"], told["films"], strict=True))
            found_in = {}
            for key, file in own_films.items():
                crops = seen_through(out / file, film)
                found_in[key] = measured(crops)
                if name in SHOWN_ROWS:
                    films[f"{key}, {name}"] = list(read_frames(scan_film(out / file)))
                if key == "edit":
                    slices[f"{key}, {name}"] = crops
            report["variants"][name] = {
                "quad_errors": quad_errors(inverted, found, film),
                "jitter": told["jitter"],
                **found_in,
            }
    with output_folder(args.out) as results:
        write_json(results / "metrics.json", report)
        (results / "table.md").write_text(markdown(report), encoding="utf-8")
        save_image(results / "strip.png", _strip(films))
        _draw_slices(slices, results / "slices.png")
    print((args.out / "table.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
