r"""Edits of obstructed avatars, measured and drawn: Fig. 8 and 9 of the paper in the avatar world.

    python -m experiments.editing_figures --data=data/avatars --out=reports/editing \
        --weights=IntereStyle=avatar_interestyle --weights=ReStyle=runs/restyle/weights \
        --directions=runs/directions --reader=avatar_attributes \
        --text="a face with a beard=beard" --clip=avatar_clip --channels=avatar_channels

The first `--num-samples` avatars of the split "test" are inverted with their obstacles, edited by
every direction and text, and read by a network that was trained on drawn avatars. Which strength an
edit has is decided on the split "validation", for each encoder and edit, by one rule: of STRENGTHS
(shares of the direction's range, or StyleCLIP's alpha), the one that changes the other attributes
least of those with which 90 % of the images reach the target, or else the one that reaches most.
It is the same for all test images.

Writes `metrics.json`, `table.md`, `edits.png` (Fig. 8), `mixing.png` (Fig. 9) and `sefa.png`. The
avatars shown are the first ones of the split, or those of --shown.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import interestyle_jax as ij
from experiments.editing_table import markdown
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.data.pipeline import evaluation_batches
from interestyle_jax.data.pixels import to_float
from interestyle_jax.editing.bands import BANDS, band_rows
from interestyle_jax.editing.direction_files import find_direction
from interestyle_jax.editing.direction_training import deviation_along, sefa_directions
from interestyle_jax.editing.directions import ENDING
from interestyle_jax.editing.edits import Edit
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attribute_changes import attribute_changes, choose_strength
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.evaluation.grids import draw_grid
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.edit_drawing import Drawing, edit_and_draw
from interestyle_jax.jobs.text_edits import text_edit
from interestyle_jax.json_file import write_json
from interestyle_jax.output_folder import output_folder

FIELDS = ("image", "clean", "face_mask", "face_mask_full", "factors")
STYLE = "toon-head"
# Of a direction's range to its high end; of StyleCLIP's alpha for texts.
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
# In standard deviations of w along the direction, over so many samples.
SEFA_COUNT, SEFA_STRENGTHS, SEFA_SAMPLES = 4, (-4.0, -2.0, 0.0, 2.0, 4.0), 1000


class Planned(NamedTuple):
    """An edit, what it is meant to bring (a name of `Attributes.scores`), and its strengths."""

    name: str
    target: str
    edit: Edit
    strengths: tuple[float, ...]


class Inverted(NamedTuple):
    """Avatars by one encoder: latents [n, L, D] with and without their obstacles."""

    w_plus: np.ndarray
    clean: np.ndarray


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


class Editor:
    """One encoder and its generator: inverts and draws in batches of one size."""

    def __init__(self, weights: str, batch_size: int, num_iterations: int | None):
        self.model: Model = ij.load(weights)
        self.model.require_inversion()
        self._batch_size, self._num_iterations = batch_size, num_iterations
        self._drawing = Drawing(self.model.network("generator"), None, None)

    def _batches(self, rows: np.ndarray):
        for start in range(0, len(rows), self._batch_size):
            part = rows[start : start + self._batch_size]
            missing = self._batch_size - len(part)
            yield np.pad(part, [(0, missing), *[(0, 0)] * (rows.ndim - 1)], mode="edge"), len(part)

    def invert(self, images: np.ndarray) -> np.ndarray:
        """The last latents [n, L, D] of images [n, H, W, 3]."""
        found = [
            self.model.invert(batch, self._num_iterations, return_images="none").w_plus[-1, :own]
            for batch, own in self._batches(images)
        ]
        return np.concatenate([np.asarray(part) for part in found])

    def draw(self, w_plus: np.ndarray, edit: Edit | None = None, strength: float = 0.0):
        """Images [n, R, R, 3] in [-1, 1] of 8 bits, of latents [n, L, D] after an edit."""
        edits, strengths = ((), ()) if edit is None else ((edit,), (np.float32(strength),))
        variables, found = self.model.variables["generator"], []
        for batch, own in self._batches(w_plus):
            drawn = edit_and_draw(
                variables, edits, strengths, jnp.asarray(batch), drawing=self._drawing
            )
            found.append(np.asarray(drawn["image"])[:own])
        return to_float(np.concatenate(found))


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
        strengths = tuple(share * limits[1] for share in STRENGTHS)
        planned.append(Planned(direction.name, target, direction.edit(layers), strengths))
    for given in args.text:
        text, equals, target = given.partition("=")
        if not (text and equals and target):
            raise InputError(f"--text: {given!r}, expected TEXT=ATTRIBUTE")
        options = {"clip": args.clip, "channels": args.channels, "num_channels": args.num_channels}
        edit = text_edit(text, neutral=args.neutral, **options)(model).edit
        planned.append(Planned(text, target, edit, ALPHAS))
    if not planned:
        raise InputError("--directions, --text: expected one of them")
    return planned


def measure(
    args: argparse.Namespace,
    editor: Editor,
    planned: Sequence[Planned],
    reader: AttributeReader,
    avatars: dict[str, dict[str, Any]],
) -> tuple[dict[str, Any], Inverted]:
    """Figures of one encoder, and the test avatars' latents."""
    size = args.batch_size
    chosen: dict[str, float] = {}
    w_plus = editor.invert(avatars["validation"]["image"])
    before = reader.read_all(editor.draw(w_plus), batch_size=size)
    for one in planned:
        found = {}
        for strength in one.strengths:
            after = reader.read_all(editor.draw(w_plus, one.edit, strength), batch_size=size)
            found[strength] = attribute_changes(before, after, one.target)
        chosen[one.name] = choose_strength(found)
    test = avatars["test"]
    inverted = Inverted(editor.invert(test["image"]), editor.invert(test["clean"]))
    before = reader.read_all(editor.draw(inverted.w_plus), batch_size=size)
    figures: dict[str, Any] = {}
    for one in planned:
        strength = chosen[one.name]
        images = editor.draw(inverted.w_plus, one.edit, strength)
        without = editor.draw(inverted.clean, one.edit, strength)
        changes = attribute_changes(before, reader.read_all(images, batch_size=size), one.target)
        figures[one.name] = {
            "target": one.target,
            "strength": strength,
            "reached": changes.reached,
            "eligible": changes.eligible,
            "changed": changes.changed,
            "mean_changed": changes.mean_changed,
            "covered_l1": covered_difference(images, without, test["covered"]),
        }
    unedited = editor.draw(inverted.w_plus), editor.draw(inverted.clean)
    facts = {
        "edits": figures,
        "covered_l1_unedited": covered_difference(*unedited, test["covered"]),
    }
    return facts, inverted


def covered_difference(a: np.ndarray, b: np.ndarray, covered: np.ndarray) -> float | None:
    """Mean absolute difference of images [n, H, W, 3] where an obstacle covers the face."""
    return float(np.abs(a - b)[covered].mean()) if covered.any() else None


def reader_accuracy(
    reader: AttributeReader, avatars: dict[str, Any], batch_size: int
) -> dict[str, float]:
    """Of each attribute, how often it is read right from the avatars without obstacles."""
    read = reader.read_all(avatars["clean"], batch_size=batch_size)
    names = factors_of_style(STYLE).names
    found = {}
    for attribute, chances in read.chances.items():
        # A colour's kinds are called by what they colour, beside parts of that name.
        part = attribute.removesuffix("_colour")
        columns = [names.index(f"{part}={kind}") for kind in chances]
        true = np.array(list(chances))[avatars["factors"][:, columns].argmax(axis=1)]
        found[attribute] = float((np.array(read.labels(attribute)) == true).mean())
    return found


def edits_grid(editors, inverted, figures, planned, avatars, shown) -> np.ndarray:
    """Fig. 8: of every avatar a row for each encoder, its columns the edits."""
    rows, labels = [], []
    for i in shown:
        for name, editor in editors.items():
            w_plus = inverted[name].w_plus[i : i + 1]
            cells = [avatars["image"][i], editor.draw(w_plus)[0]]
            for one in planned[name]:
                strength = figures[name]["edits"][one.name]["strength"]
                cells.append(editor.draw(w_plus, one.edit, strength)[0])
            rows.append(cells)
            labels.append(name)
    return draw_grid(
        rows, ["input", "inversion", *(p.name for p in planned[name])], row_labels=labels
    )


def mixing_grid(editor: Editor, inverted: Inverted, avatars, shown) -> np.ndarray:
    """Fig. 9: every avatar with the coarse, middle and fine rows of the next one."""
    length, rows = editor.model.latents_shape[0], []
    for i, j in zip(shown, [*shown[1:], shown[0]], strict=True):
        a, b = inverted.w_plus[i], inverted.w_plus[j]
        cells = [avatars["image"][i], avatars["image"][j]]
        for band in BANDS:
            mixed = a.copy()
            own = list(band_rows([band], length))
            mixed[own] = b[own]
            cells.append(editor.draw(mixed[None])[0])
        rows.append(cells)
    return draw_grid(rows, ["content", "style", *BANDS])


def sefa_grid(editor: Editor) -> np.ndarray:
    """The mean face along SeFa's directions of each band."""
    model, rows, labels = editor.model, [], []
    mean = np.asarray(model.mean_latent())
    z = jax.random.normal(jax.random.key(0), (SEFA_SAMPLES, model.network("generator").z_dim))
    w = np.asarray(model.map(z))
    length = model.latents_shape[0] - 1
    for band in BANDS:
        own = [row for row in band_rows([band], length) if row < length]
        for k, direction in enumerate(sefa_directions(model, rows=own, count=SEFA_COUNT)):
            edit = direction.edit(model.style_layers)
            deviation = deviation_along(w, direction.array)
            rows.append([editor.draw(mean, edit, s * deviation)[0] for s in SEFA_STRENGTHS])
            labels.append(f"{band} {k + 1}")
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
    parser.add_argument("--channels", default="avatar_channels")
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
        figures[name], inverted[name] = measure(args, editor, planned[name], reader, avatars)
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
