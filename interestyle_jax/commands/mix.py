"""The command `interestyle mix`; `jobs.mixes` does the work."""

import argparse

from interestyle_jax.commands import job_options
from interestyle_jax.commands.options import signed_numbers
from interestyle_jax.commands.photo_options import add_photo_options, take_alignment


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "mix",
        help="mix images, or latents of images",
        description="Draws every content with some rows of the latents of every style.",
    )
    job_options.add_latent_options(
        parser,
        images="contents, inverted first",
        latents="contents: latents.npz of `invert`, or its folder",
    )
    parser.add_argument(
        "--style-input",
        dest="style_source",
        metavar="IMAGE_OR_DIR",
        help="styles (default the contents themselves)",
    )
    parser.add_argument("--style-latents", metavar="FILE_OR_DIR", help="styles, as --latents")
    parser.add_argument(
        "--styles",
        required=True,
        metavar="BANDS_OR_ROWS",
        help="what the style gives: coarse, middle, fine, several with commas, or rows (0-3,6)",
    )
    parser.add_argument(
        "--shares",
        type=signed_numbers,
        metavar="A,B,...",
        help="how much of it, 0 to 1, a column each (default 1), e.g. 0,0.25,0.5,0.75,1",
    )
    parser.add_argument("--style-tuned", metavar="DIR", help="the same of --style-latents")
    add_photo_options(parser)
    job_options.add_run_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.mixes import mix_files

    arguments = job_options.arguments_of(args)
    arguments["alignment"] = take_alignment(arguments)
    return job_options.print_result(args.out, mix_files(**arguments), "mixed")
