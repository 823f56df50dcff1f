"""The command `interestyle masks`; `jobs.masks` does the work."""

import argparse
from pathlib import Path

from interestyle_jax.commands import job_options
from interestyle_jax.commands.options import numbers, words

# What goes to the provider.
_OPTIONS = (
    *("weights", "model", "revision", "masks", "face_masks", "labels", "order"),
    *("classes", "face_classes", "threshold", "scales"),
)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    from interestyle_jax.interest.providers import PROVIDERS

    parser = commands.add_parser(
        "masks",
        help="make interest masks of images",
        description="Makes interest masks by a provider.",
    )
    parser.add_argument("--provider", required=True, choices=PROVIDERS)
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--weights", metavar="DIR", help="graphonomy: its converted checkpoint, a weight directory"
    )
    parser.add_argument("--model", metavar="NAME_OR_DIR", help="segformer, detr: the network")
    parser.add_argument("--revision", help="segformer, detr: the network's version on the hub")
    parser.add_argument("--masks", metavar="DIR", help="folder: interest masks")
    parser.add_argument("--face-masks", metavar="DIR", help="folder: face masks")
    parser.add_argument("--labels", metavar="DIR", help="folder, celebamask: label maps, or parts")
    parser.add_argument("--order", help="celebamask: order of the labels in label maps")
    parser.add_argument(
        "--classes", type=words, metavar="A,B", help="labels of the interest region"
    )
    parser.add_argument("--face-classes", type=words, metavar="A,B", help="labels of the face")
    parser.add_argument("--threshold", type=float, help="selfie, detr: least probability")
    parser.add_argument(
        "--scales", type=numbers, metavar="1,0.5", help="graphonomy: default the official six"
    )
    tiny = "interest regions below it are reported (default 0.01 of the image)"
    parser.add_argument("--tiny", type=float, metavar="SHARE", help=tiny)
    parser.add_argument(
        "--sheets", dest="num_sheets", type=int, metavar="N", help="overlay sheets (default 10)"
    )
    job_options.add_run_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.masks import write_masks

    arguments = job_options.arguments_of(args)
    report = write_masks(options=job_options.take(arguments, _OPTIONS), **arguments)

    def done() -> str:
        interest, skipped = report["interest"], len(report["skipped"])
        return (
            f"{args.out}: masks of {report['num_images']} images, {skipped} skipped; interest "
            f"region empty in {100 * interest['empty']:.1f} %, below "
            f"{100 * interest['tiny_below']:g} % of the image in {100 * interest['tiny']:.1f} %"
        )

    return job_options.print_result(args.out, report, "masks of", done=done)
