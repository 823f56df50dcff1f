"""The command `interestyle align`; `jobs.alignments` does the work."""

import argparse

from interestyle_jax.commands.options import (
    add_job_options,
    add_landmark_options,
    add_out_option,
    count,
    run_options,
)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "align",
        help="align the faces of photographs as in FFHQ",
        description="Cuts the face of a photograph, or of every photograph of a folder, upright. "
        "The same command continues after a stop.",
    )
    parser.add_argument("--input", required=True, metavar="IMAGE_OR_DIR")
    add_out_option(parser)
    parser.add_argument("--size", type=count, default=1024, help="side in pixels (default 1024)")
    add_landmark_options(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.alignments import align_files

    report = align_files(
        args.input,
        args.out,
        size=args.size,
        landmarks=args.landmarks or "litert",
        dlib_file=args.dlib_file,
        **run_options(args),
    )
    if report["status"] != "done":
        print(f"{args.out}: aligned {report['num_images']} images, {report['num_left']} are left")
        return 0
    done, skipped, seconds = (report[key] for key in ("num_images", "num_skipped", "seconds"))
    print(f"{args.out}: aligned {done} images in {seconds:.1f} s, skipped {skipped}")
    return 0
