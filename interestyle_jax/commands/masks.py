"""The command `interestyle masks`; `jobs.masks` does the work."""

import argparse
from pathlib import Path

from interestyle_jax.commands.options import (
    add_job_options,
    add_out_option,
    numbers,
    run_options,
    words,
)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    from interestyle_jax.interest.providers import PROVIDERS

    parser = commands.add_parser(
        "masks",
        help="make interest masks of images",
        description="Makes interest masks by a provider; the same command continues after a stop.",
    )
    parser.add_argument("--provider", required=True, choices=PROVIDERS)
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    add_out_option(parser)
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
    parser.add_argument(
        "--tiny", type=float, default=0.01, metavar="SHARE",
        help="interest regions below it are reported (default 0.01 of the image)",
    )  # fmt: skip
    parser.add_argument("--sheets", type=int, default=10, help="overlay sheets (default 10)")
    add_job_options(parser, skipped="of images that may go without masks (default 0.01)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.masks import write_masks

    names = (
        "weights", "model", "revision", "masks", "face_masks", "labels", "order", "classes",
        "face_classes", "threshold", "scales",
    )  # fmt: skip
    report = write_masks(
        args.images,
        args.out,
        provider=args.provider,
        options={name: getattr(args, name) for name in names},
        tiny=args.tiny,
        num_sheets=args.sheets,
        **run_options(args),
    )
    if report["status"] != "done":
        done, left = report["num_images"], report["num_left"]
        print(f"{args.out}: masks of {done} images, {left} are left")
        return 0
    interest = report["interest"]
    print(
        f"{args.out}: masks of {report['num_images']} images, {len(report['skipped'])} "
        f"skipped; interest region empty in {100 * interest['empty']:.1f} %, below "
        f"{100 * args.tiny:g} % of the image in {100 * interest['tiny']:.1f} %"
    )
    return 0
