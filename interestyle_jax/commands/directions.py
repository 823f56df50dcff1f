"""The command `interestyle directions`; `editing.direction_training` does the work."""

import argparse
from pathlib import Path
from typing import Any

from interestyle_jax.commands.options import add_out_option, count, natural
from interestyle_jax.errors import InputError

DESCRIPTION = """\
Makes directions that `interestyle edit` takes (docs/editing.md).

  train     from scores of random latents: InterFaceGAN's boundaries
  sefa      from the generator's weights alone
  ganspace  the principal components of many latents
  global    what each channel of S does to CLIP's features, for edits by text (StyleCLIP)
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "directions",
        help="make directions for edits",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    kinds = parser.add_subparsers(dest="method", metavar="METHOD", required=True)
    train = kinds.add_parser("train", help="from scores: InterFaceGAN")
    train.add_argument(
        "--attribute",
        action="append",
        required=True,
        metavar="NAME",
        help='what is scored, e.g. "beard", "mouth=smile", "yaw"; a direction each (repeatable)',
    )
    train.add_argument(
        "--scores",
        default="attributes",
        metavar="attributes|landmarks|FILE.csv",
        help="who scores the samples (avatars, faces), or a file with a row for each of --latents",
    )
    train.add_argument(
        "--reader", default="avatar_attributes", metavar="WEIGHTS", help="of --scores=attributes"
    )
    train.add_argument(
        "--latents", type=Path, metavar="FILE.npz", help="w [N, D] in place of random samples"
    )
    train.add_argument(
        "--share", type=float, default=0.02, help="of the samples at each end (default 0.02)"
    )
    train.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME:OTHER,OTHER|all",
        help="attributes that a direction leaves alone (repeatable); all: each, all others",
    )
    train.add_argument(
        "--fit",
        default="svm",
        metavar="svm|means",
        help="a boundary's normal (InterFaceGAN), or the difference of means (default svm)",
    )
    train.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="of each --attribute's direction (default from the attribute)",
    )
    train.add_argument("--truncation-psi", type=float, default=1.0, help="of samples (default 1)")
    train.add_argument(
        "--num-changed", type=count, default=200, metavar="N", help="samples edited for the report"
    )
    _add_samples(train, 20_000)
    sefa = kinds.add_parser("sefa", help="from the weights alone")
    sefa.add_argument("--rows", default="", metavar="0-3", help="of w_plus (default: all)")
    sefa.add_argument("--count", type=count, default=5, help="directions (default 5)")
    ganspace = kinds.add_parser("ganspace", help="principal components of w")
    ganspace.add_argument("--count", type=count, default=20, help="directions (default 20)")
    _add_samples(ganspace, 100_000)
    everything = kinds.add_parser("global", help="channels of S against CLIP: StyleCLIP's fs3")
    everything.add_argument("--clip", required=True, metavar="DIR|NAME", help="of a CLIP")
    everything.add_argument(
        "--num-images", type=count, default=100, metavar="N", help="a channel (default 100)"
    )
    everything.add_argument("--truncation-psi", type=float, default=0.7, help="default 0.7")
    everything.add_argument("--force", action="store_true", help="replace an existing DIR")
    _add_samples(everything, 20_000)
    for kind in (train, sefa, ganspace, everything):
        kind.add_argument("--weights", required=True, metavar="DIR|NAME", help="of a generator")
        add_out_option(kind)


def _add_samples(parser: argparse.ArgumentParser, samples: int) -> None:
    parser.add_argument(
        "--num-samples", type=count, default=samples, metavar="N", help=f"default {samples}"
    )
    parser.add_argument("--batch-size", type=count, default=64)
    parser.add_argument("--seed", type=natural, default=0)


def run(args: argparse.Namespace) -> int:
    """Runs `interestyle directions`; returns 0. Raises InputError on bad input."""
    # Imported here: JAX takes a second.
    import interestyle_jax as ij
    from interestyle_jax.editing.directions import save_direction
    from interestyle_jax.output_folder import output_folder

    if args.method == "global":
        return _global(args)
    model = ij.load(args.weights)
    makers = {"train": _train, "sefa": _sefa, "ganspace": _ganspace}
    directions, files = makers[args.method](args, model)
    with output_folder(args.out) as out:
        for direction in directions:
            save_direction(out / f"{direction.name}.npz", direction)
        for name, write in files.items():
            write(out / name)
    print(f"wrote {len(directions)} directions to {args.out}")
    return 0


def _global(args: argparse.Namespace) -> int:
    from interestyle_jax.editing.clip import load_clip
    from interestyle_jax.editing.styleclip.channel_measurement import measure_channels

    measure_channels(
        args.weights,
        load_clip(args.clip),
        args.out,
        num_images=args.num_images,
        num_samples=args.num_samples,
        truncation_psi=args.truncation_psi,
        batch_size=args.batch_size,
        seed=args.seed,
        force=args.force,
    )
    print(f"wrote {args.out}")
    return 0


def _train(args: argparse.Namespace, model: Any) -> tuple[list, dict]:
    import dataclasses

    import jax
    import numpy as np

    from interestyle_jax.editing import direction_effects as effects
    from interestyle_jax.editing import direction_training as training
    from interestyle_jax.editing import scores as scoring
    from interestyle_jax.editing.direction_table import table
    from interestyle_jax.json_file import write_json

    on_all = "all" in args.condition
    conditions = _conditions([word for word in args.condition if word != "all"])
    from_file = args.scores not in scoring.SCORERS
    if from_file and args.latents is None:
        raise InputError(f"--scores={args.scores}: needs --latents, a row of the file for each")
    if len(set(map(training.file_name, args.name or args.attribute))) < len(args.attribute):
        raise InputError(f"--attribute: {args.attribute} are not all of one name each")
    if len(args.name) not in (0, len(args.attribute)):
        raise InputError(f"--name: {len(args.name)} for {len(args.attribute)} times --attribute")
    scorer = (
        None
        if from_file
        else scoring.make_scorer(
            args.scores,
            args.attribute,
            weights=args.reader,
            all_names=on_all and args.fit == "means",
        )
    )
    samples_key, changed_key = jax.random.split(jax.random.key(args.seed))
    options = {"truncation_psi": args.truncation_psi, "batch_size": args.batch_size}
    if args.latents is not None:
        w, source = training.read_w(args.latents, model), f"{args.latents}"
    else:
        batches = training.sample_w(samples_key, model, args.num_samples, **options)
        w = np.concatenate([np.asarray(batch) for batch in batches])
        source = f"{len(w)} samples at psi {args.truncation_psi:g}, seed {args.seed}"
    if scorer is None:
        scores = scoring.read_scores(Path(args.scores), args.attribute, count=len(w))
    else:
        scores = training.score_w(model, w, scorer, batch_size=args.batch_size)
    if on_all:
        for name in args.attribute:
            # Kinds of one attribute rule each other out.
            own = name.partition("=")[0]
            others = [x for x in scores if x.partition("=")[0] != own]
            conditions[name] = list(dict.fromkeys([*conditions.get(name, []), *others]))
    trained = training.train_directions(
        w,
        scores,
        share=args.share,
        seed=args.seed,
        conditions=conditions,
        generator=model.generator_fingerprint,
        source=f"scores {args.scores} of {source}",
        fit=args.fit,
        names=dict(zip(args.attribute, args.name, strict=False)),
        only=args.attribute,
    )
    moved = {}
    if scorer is not None:
        batches = training.sample_w(changed_key, model, args.num_changed, **options)
        fresh = np.concatenate([np.asarray(batch) for batch in batches])
        size = args.batch_size
        if isinstance(scorer, scoring.AttributeScorer):
            measured = effects.with_measured_ranges(
                model, fresh, trained.directions, scorer.reader, batch_size=size
            )
            trained = dataclasses.replace(trained, directions=measured)
        moved = effects.changes(model, fresh, trained.directions, scorer, batch_size=size)
    facts = {"weights": str(args.weights), "scores": args.scores, "source": source}
    report = training.report_of(trained, moved, facts)
    text = table(report)
    print(text)
    scores = {name: scores[name] for name in args.attribute}
    files = {
        "report.json": lambda path: write_json(path, report),
        "table.md": lambda path: path.write_text(text, encoding="utf-8"),
        "scores.csv": lambda path: scoring.write_scores(path, scores),
    }
    return trained.directions, files


def _conditions(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        name, colon, others = word.partition(":")
        if not (name and colon and all(others.split(","))):
            raise InputError(f"--condition: {word!r}, expected NAME:OTHER,OTHER")
        found.setdefault(name, []).extend(others.split(","))
    return found


def _sefa(args: argparse.Namespace, model: Any) -> tuple[list, dict]:
    from interestyle_jax.editing.bands import parse_rows
    from interestyle_jax.editing.direction_training import sefa_directions
    from interestyle_jax.editing.edits import num_rows

    # The last row draws ToRGB alone.
    length = num_rows(model.style_layers) - 1
    rows = parse_rows(args.rows) if args.rows else tuple(range(length))
    return sefa_directions(model, rows=rows, count=args.count), {}


def _ganspace(args: argparse.Namespace, model: Any) -> tuple[list, dict]:
    import jax

    from interestyle_jax.editing.direction_training import ganspace_directions

    directions = ganspace_directions(
        jax.random.key(args.seed),
        model,
        num_samples=args.num_samples,
        count=args.count,
        batch_size=args.batch_size,
    )
    return directions, {}
