"""The command `interestyle align`; `jobs.alignments` does the work."""

import argparse

from interestyle_jax.commands import job_options
from interestyle_jax.commands.options import count
from interestyle_jax.commands.photo_options import add_landmark_options


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "align",
        help="align the faces of photographs as in FFHQ",
        description="Cuts the face of a photograph, or of every photograph of a folder, upright.",
    )
    parser.add_argument("--input", dest="source", required=True, metavar="IMAGE_OR_DIR")
    parser.add_argument("--size", type=count, help="side in pixels (default 1024)")
    add_landmark_options(parser)
    job_options.add_run_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.alignments import align_files

    report = align_files(**job_options.arguments_of(args))
    return job_options.print_result(args.out, report, "aligned")
