r"""Edits of obstructed avatars, measured and drawn: Fig. 8 and 9 of the paper in the avatar world.

    python -m experiments.editing_figures --data=data/avatars --out=reports/editing \
        --weights=IntereStyle=avatar_interestyle --weights=ReStyle=runs/restyle/weights \
        --directions=interestyle_jax/assets/directions --text="a face with a beard=beard"

The first `--num-samples` avatars of the split "test" are inverted with their obstacles, edited by
every direction and text, and read by a network that was trained on drawn avatars. Which strength an
edit has is decided on the split "validation", for each encoder and edit, by one rule: the smallest
of SHARES of the edit's range with which 90 % of the images reach the target, or else the one that
reaches most. It is the same for all test images. What the range's own end reaches, which users get
without choosing, stands beside it.

Attributes of an inversion may be hard to read, and then change with anything: beside every edit
stands what random directions of W of its length change, and for each encoder how often an inversion
is read as the avatar without its obstacle.

Writes `metrics.json`, `table.md`, `edits.png` (Fig. 8), `mixing.png` (Fig. 9) and `sefa.png`. The
avatars shown are the first ones of the split, or those of --shown.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.editing_measures import Editor, Inverted, Planned, measure, reader_accuracy
from experiments.editing_table import markdown
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.pipeline import evaluation_batches
from interestyle_jax.data.pixels import to_float
from interestyle_jax.editing.bands import BANDS, band_rows
from interestyle_jax.editing.direction_files import find_direction
from interestyle_jax.editing.direction_training import deviation_along, sefa_directions
from interestyle_jax.editing.directions import ENDING
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.evaluation.grids import draw_grid
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.text_edits import text_edit
from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder

FIELDS = ("image", "clean", "face_mask", "face_mask_full", "factors")
# In standard deviations of w along the direction, over so many samples.
SEFA_COUNT, SEFA_STRENGTHS, SEFA_SAMPLES = 4, (-4.0, -2.0, 0.0, 2.0, 4.0), 1000


def read_avatars(data: Path, split: str, num_samples: int, batch_size: int) -> dict[str, Any]:
    """The first avatars: images float [n, H, W, 3] in [-1, 1], `covered` bool [n, H, W]."""
    batches = evaluation_batches(
        data, split, batch_size=batch_size, fields=FIELDS, num_samples=num_samples
    )
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name in (*FIELDS, "id"):
            parts.setdefault(name, []).append(batch[name][batch["valid"]])
    found = {name: np.concatenate(values) for name, values in parts.items()}
    seen, whole = (found.pop(name)[..., 0] > 127 for name in ("face_mask", "face_mask_full"))
    found |= {name: to_float(found[name]) for name in ("image", "clean")}
    return found | {"covered": whole & ~seen}


def plan(args: argparse.Namespace, model: Model) -> list[Planned]:
    """The directions of the folder, by name, then the texts.

    Raises:
      InputError: no direction, one that does not fit or does not say its attribute, a bad --text.
    """
    layers, planned = model.style_layers, []
    files = sorted(args.directions.glob(f"*{ENDING}")) if args.directions else []
    if args.directions and not files:
        raise InputError(f"{args.directions}: holds no directions ({ENDING})")
    own = model.generator_fingerprint
    for path in files:
        direction = find_direction(path, layers, w_dim=model.latents_shape[1], generator=own)
        target, limits = direction.extra.get("attribute"), direction.default_range
        if not isinstance(target, str) or limits is None:
            raise InputError(
                f"{path}: expected one of `directions train`, with attribute and range"
            )
        norm = direction.norm if direction.kind == "w" else None
        planned.append(Planned(direction.name, target, direction.edit(layers), limits[1], norm))
    for given in args.text:
        text, equals, target = given.partition("=")
        if not (text and equals and target):
            raise InputError(f"--text: {given!r}, expected TEXT=ATTRIBUTE")
        options = {"clip": args.clip, "channels": args.channels, "num_channels": args.num_channels}
        found = text_edit(text, neutral=args.neutral, **options)(model)
        norm = found.facts["norm"] if found.facts["kind"] == "w" else None
        planned.append(Planned(text, target, found.edit, found.facts["default_range"][1], norm))
    if not planned:
        raise InputError("--directions, --text: expected one of them")
    return planned


def edits_grid(editors, inverted, figures, planned, avatars, shown) -> np.ndarray:
    """Fig. 8: of every avatar a row for each encoder, its columns the edits."""
    columns = {}
    for name, editor in editors.items():
        w_plus, edits = inverted[name].w_plus[shown], figures[name]["edits"]
        drawn = [editor.draw(w_plus, p.edit, edits[p.name]["strength"]) for p in planned[name]]
        columns[name] = [editor.draw(w_plus), *drawn]
    rows = [
        [avatars["image"][i], *(column[k] for column in columns[name])]
        for k, i in enumerate(shown)
        for name in editors
    ]
    labels = [name for _ in shown for name in editors]
    edits = [p.name for p in next(iter(planned.values()))]
    return draw_grid(rows, ["input", "inversion", *edits], row_labels=labels)


def mixing_grid(editor: Editor, inverted: Inverted, avatars, shown) -> np.ndarray:
    """Fig. 9: every avatar with the coarse, middle and fine rows of the next one."""
    length = editor.model.latents_shape[0]
    following = [*shown[1:], shown[0]]
    columns = [avatars["image"][shown], avatars["image"][following]]
    for band in BANDS:
        mixed, own = inverted.w_plus[shown].copy(), list(band_rows([band], length))
        mixed[:, own] = inverted.w_plus[following][:, own]
        columns.append(editor.draw(mixed))
    return draw_grid(
        [list(row) for row in zip(*columns, strict=True)], ["content", "style", *BANDS]
    )


def sefa_grid(editor: Editor) -> np.ndarray:
    """The mean face along SeFa's directions of each band."""
    model, moved, labels = editor.model, [], []
    mean = np.asarray(model.mean_latent())[0]
    z = jax.random.normal(jax.random.key(0), (SEFA_SAMPLES, model.network("generator").z_dim))
    w = np.asarray(model.map(z))
    length = model.latents_shape[0] - 1
    for band in BANDS:
        own = [row for row in band_rows([band], length) if row < length]
        for k, direction in enumerate(sefa_directions(model, rows=own, count=SEFA_COUNT)):
            deviation = deviation_along(w, direction.array)
            for strength in SEFA_STRENGTHS:
                step = mean.copy()
                step[own] += strength * deviation * direction.array
                moved.append(step)
            labels.append(f"{band} {k + 1}")
    images, count = editor.draw(np.stack(moved)), len(SEFA_STRENGTHS)
    rows = [list(images[i : i + count]) for i in range(0, len(images), count)]
    return draw_grid(rows, [f"{s:+g} sd" for s in SEFA_STRENGTHS], row_labels=labels)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        prog="editing_figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, type=Path, help="avatar data set")
    parser.add_argument("--weights", required=True, action="append", metavar="NAME=DIR")
    parser.add_argument("--directions", type=Path, metavar="DIR", help="of `directions train`")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT=ATTRIBUTE")
    parser.add_argument("--neutral", default="a face")
    parser.add_argument("--clip", default="avatar_clip")
    parser.add_argument("--channels", default="avatar_texts")
    parser.add_argument("--num-channels", type=count, metavar="N", help="of a text's direction")
    parser.add_argument("--reader", default="avatar_attributes")
    parser.add_argument("--num-samples", type=count, default=200, help="test avatars")
    parser.add_argument("--num-validation", type=count, default=100)
    parser.add_argument(
        "--shown", type=lambda t: [int(i) for i in t.split(",")], default=[0, 1, 2, 3]
    )
    parser.add_argument("--batch-size", type=count, default=25)
    parser.add_argument("--steps", type=count, metavar="N", help="of inversion (default as invert)")
    add_out_option(parser)
    args = parser.parse_args(arguments)
    pairs = [given.partition("=") for given in args.weights]
    if not all(name and equals and path for name, equals, path in pairs):
        parser.error("--weights: expected NAME=DIR")
    args.weights = {name: path for name, _, path in pairs}
    if len(args.weights) != len(pairs):
        parser.error("--weights: expected a name of its own for each")
    if not all(0 <= i < args.num_samples for i in args.shown):
        parser.error(f"--shown: expected numbers below --num-samples={args.num_samples}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`)."""
    return run_command(lambda: _run(argv), program="editing_figures")


def _run(argv: Sequence[str] | None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parse(arguments)
    numbers = {"validation": args.num_validation, "test": args.num_samples}
    avatars = {x: read_avatars(args.data, x, n, args.batch_size) for x, n in numbers.items()}
    reader = AttributeReader(args.reader)
    editors = {
        name: Editor(path, args.batch_size, args.steps) for name, path in args.weights.items()
    }
    planned = {name: plan(args, editor.model) for name, editor in editors.items()}
    figures, inverted = {}, {}
    for name, editor in editors.items():
        figures[name], inverted[name] = measure(
            editor, planned[name], reader, avatars, batch_size=args.batch_size
        )
    metrics = {
        "command": shlex.join(["python", "-m", "experiments.editing_figures", *arguments]),
        "num_images": len(avatars["test"]["id"]),
        "num_validation": len(avatars["validation"]["id"]),
        "shown": args.shown,
        "reader_accuracy": reader_accuracy(reader, avatars["test"], args.batch_size),
        "encoders": figures,
    }
    shown, test = args.shown, avatars["test"]
    first = next(iter(editors))
    grids = {
        "edits": edits_grid(editors, inverted, figures, planned, test, shown),
        "mixing": mixing_grid(editors[first], inverted[first], test, shown),
        "sefa": sefa_grid(editors[first]),
    }
    text = markdown(metrics)
    with output_folder(args.out) as out:
        for name, grid in grids.items():
            Image.fromarray(grid).save(out / f"{name}.png", optimize=True)
        write_json(out / "metrics.json", metrics)
        (out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"written to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
