"""The command `interestyle mix`; `jobs.mixes` does the work."""

import argparse

from interestyle_jax.commands.options import (
    add_job_options,
    add_landmark_options,
    add_model_options,
    add_out_option,
    count,
    run_options,
    signed_numbers,
)
from interestyle_jax.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "mix",
        help="mix images, or latents of images",
        description="Draws every content with some rows of the latents of every style. The same "
        "command continues after a stop.",
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", metavar="IMAGE_OR_DIR", help="contents, inverted first")
    parser.add_argument(
        "--latents", metavar="FILE_OR_DIR", help="contents: latents.npz of `invert`, or its folder"
    )
    parser.add_argument(
        "--style-input", metavar="IMAGE_OR_DIR", help="styles (default the contents themselves)"
    )
    parser.add_argument("--style-latents", metavar="FILE_OR_DIR", help="styles, as --latents")
    add_out_option(parser)
    parser.add_argument(
        "--styles",
        required=True,
        metavar="BANDS_OR_ROWS",
        help="what the style gives: coarse, middle, fine, several with commas, or rows (0-3,6)",
    )
    parser.add_argument(
        "--shares",
        type=signed_numbers,
        default=(1.0,),
        metavar="A,B,...",
        help="how much of it, 0 to 1, a column each (default 1), e.g. 0,0.25,0.5,0.75,1",
    )
    parser.add_argument(
        "--other-generator",
        action="store_true",
        help="take latents that were made with another generator",
    )
    parser.add_argument(
        "--tuned",
        metavar="DIR",
        help="folder of `invert --method=pti`: each latent is drawn by its own generator",
    )
    parser.add_argument("--style-tuned", metavar="DIR", help="the same of --style-latents")
    add_model_options(parser)
    parser.add_argument("--batch-size", type=count, help="images at once (default 8 a device)")
    add_job_options(parser)
    photos = parser.add_argument_group("photographs")
    photos.add_argument(
        "--align", action="store_true", help="take each photograph's face, aligned as in FFHQ"
    )
    add_landmark_options(photos)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.aligned_faces import Alignment
    from interestyle_jax.jobs.mixes import mix_files

    given = {"landmarks": args.landmarks, "dlib_file": args.dlib_file}
    given = {name: value for name, value in given.items() if value is not None}
    if given and not args.align:
        raise InputError("--landmarks and --dlib-file need --align")
    report = mix_files(
        args.weights,
        args.out,
        styles=args.styles,
        source=args.input,
        latents=args.latents,
        style_source=args.style_input,
        style_latents=args.style_latents,
        shares=args.shares,
        other_generator=args.other_generator,
        tuned=args.tuned,
        style_tuned=args.style_tuned,
        num_iterations=args.steps,
        dtype=args.dtype,
        batch_size=args.batch_size,
        alignment=Alignment(**given) if args.align else None,
        **run_options(args),
    )
    if report["status"] != "done":
        print(f"{args.out}: mixed {report['num_images']} images, {report['num_left']} are left")
        return 0
    print(f"{args.out}: mixed {report['num_images']} images in {report['seconds']:.1f} s")
    return 0
