"""What the parsers of image jobs share: options, and from them the arguments of the work.

The destination of an option is the parameter that it gives, so that no command lists them twice.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from interestyle_jax.commands.options import add_out_option, count, given_options, natural


def add_run_options(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]
) -> None:
    """Makes the parser an image job's: its results, and how it is run."""
    assert parser.description is not None
    parser.description += " The same command continues after a stop."
    add_out_option(parser)
    job = parser.add_argument_group("how the job is run")
    job.add_argument(
        "--max-skipped",
        type=float,
        metavar="SHARE",
        help="of images that may be skipped (default 0.01; 0.5 where faces are looked for, 0 of a "
        "data set)",
    )
    job.add_argument("--workers", type=natural, metavar="N", help="threads (default one a core)")
    job.add_argument(
        "--shard",
        metavar="I/N",
        help="do part I = 0 ... N-1 of N, one process each into one --out (default: all, or as "
        "SLURM, Open MPI, Kubernetes or a TPU pod say)",
    )
    parser.set_defaults(run=run)


def add_model_options(parser: argparse._ActionsContainer, *, per_device: int) -> None:
    """How models run; `per_device` is the default of the images at once."""
    parser.add_argument(
        "--steps",
        dest="num_iterations",
        type=count,
        metavar="N",
        help="iterations N (default 5; encoders that see the image alone run once)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks' maps"
    )
    parser.add_argument(
        "--batch-size", type=count, help=f"images at once (default {per_device} a device)"
    )


def add_other_generator(parser: argparse._ActionsContainer) -> None:
    """Whether a generator draws what was made for another."""
    parser.add_argument(
        "--other-generator",
        action="store_true",
        help="take latents and directions that were made for another generator",
    )


def add_latent_options(
    parser: argparse._ActionsContainer, *, images: str, latents: str, metavar: str = "IMAGE_OR_DIR"
) -> None:
    """What `edit` and `mix` draw, and by which generators; `images` and `latents` explain both."""
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", dest="source", metavar=metavar, help=images)
    parser.add_argument("--latents", metavar="FILE_OR_DIR", help=latents)
    add_model_options(parser, per_device=8)
    add_other_generator(parser)
    parser.add_argument(
        "--tuned",
        metavar="DIR",
        help="folder of `invert --method=pti`: each latent is drawn by its own generator",
    )


def arguments_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by the parameters they give, and `RunOptions`.

    Raises:
      InputError: a bad --shard.
    """
    from interestyle_jax.jobs.shard import find_shard

    return given_options(args) | {"shard": find_shard(args.shard), "command": args.argv}


def take(arguments: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of these names, which the rest is without from now on."""
    return {name: arguments.pop(name) for name in names if name in arguments}


def print_result(
    out: Path, report: Mapping[str, Any], did: str, *, done: Callable[[], str] | None = None
) -> int:
    """Prints what a job did; returns 0.

    Args:
      out: the folder of the results.
      report: what the job returned.
      did: what was done with the images, "inverted".
      done: the line of a whole job, where it says more than how many images.
    """
    start = f"{out}: {did} {report['num_images']} images"
    if report.get("status") == "part done":
        print(f"{start}, {report['num_left']} are left")
    elif done is not None:
        print(done())
    else:
        print(f"{start} in {report['seconds']:.1f} s, skipped {report['num_skipped']}")
    return 0
