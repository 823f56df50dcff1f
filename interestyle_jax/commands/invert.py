"""The command `interestyle invert`; `jobs.inversions` does the work."""

import argparse

from interestyle_jax.commands.optimisation_options import add_optimisation_options, given_options
from interestyle_jax.commands.options import (
    add_job_options,
    add_model_options,
    add_out_option,
    count,
    run_options,
)
from interestyle_jax.commands.photo_options import add_photo_options, alignment_of
from interestyle_jax.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "invert",
        help="invert images into latents",
        description="Inverts an image or a folder of images, by an encoder or by optimisation; no "
        "mask is needed. The same command continues after a stop.",
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", required=True, metavar="IMAGE_OR_DIR")
    add_out_option(parser)
    add_model_options(parser)
    parser.add_argument("--batch-size", type=count, help="images at once (default 8 a device)")
    add_optimisation_options(parser)
    add_job_options(parser)
    add_photo_options(parser, result="the inversion")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.inversions import invert_files

    options = {
        "dtype": args.dtype,
        "batch_size": args.batch_size,
        "alignment": alignment_of(args),
        **run_options(args),
    }
    optimised = given_options(args)
    if args.method is None:
        report = invert_files(
            args.weights, args.input, args.out, num_iterations=args.steps, **options
        )
    else:
        from interestyle_jax.jobs.optimisations import optimise_files

        if args.steps is not None:
            raise InputError("--steps: iterations of an encoder; of --method it is --num-steps")
        report = optimise_files(args.weights, args.input, args.out, **optimised, **options)
    if report["status"] != "done":
        print(f"{args.out}: inverted {report['num_images']} images, {report['num_left']} are left")
        return 0
    print(f"{args.out}: inverted {report['num_images']} images in {report['seconds']:.1f} s")
    return 0
