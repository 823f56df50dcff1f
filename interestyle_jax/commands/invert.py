"""The command `interestyle invert`; `jobs.inversions` does the work."""

import argparse

from interestyle_jax.commands.options import (
    add_job_options,
    add_landmark_options,
    add_model_options,
    add_out_option,
    count,
)
from interestyle_jax.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "invert",
        help="invert images into latents",
        description="Inverts an image or a folder of images; no mask is needed. The same "
        "command continues after a stop.",
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", required=True, metavar="IMAGE_OR_DIR")
    add_out_option(parser)
    add_model_options(parser)
    parser.add_argument("--batch-size", type=count, help="images at once (default 8 a device)")
    add_job_options(parser)
    photos = parser.add_argument_group("photographs")
    photos.add_argument(
        "--align", action="store_true", help="invert each photograph's face, aligned as in FFHQ"
    )
    add_landmark_options(photos)
    photos.add_argument(
        "--paste-back",
        action="store_true",
        help="also write NAME_pasted.png, the photograph with the inversion in it",
    )
    photos.add_argument(
        "--feather",
        type=float,
        metavar="SHARE",
        help="width of the soft edge as a share of the square's side (default 0.1)",
    )
    photos.add_argument(
        "--paste-shape", choices=("square", "ellipse"), help="what is pasted (default square)"
    )
    photos.add_argument(
        "--paste-mask",
        metavar="PROVIDER",
        help="paste the interest region only: selfie, segformer, detr or graphonomy",
    )
    photos.add_argument(
        "--paste-mask-weights", metavar="NAME_OR_DIR", help="the provider's weights or model"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.aligned_faces import Alignment
    from interestyle_jax.jobs.inversions import invert_files
    from interestyle_jax.jobs.shard import find_shard

    given = {
        "landmarks": args.landmarks,
        "dlib_file": args.dlib_file,
        "paste_back": args.paste_back or None,
        "feather": args.feather,
        "shape": args.paste_shape,
        "mask": args.paste_mask,
        "mask_weights": args.paste_mask_weights,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and not args.align:
        raise InputError("--paste-back and options of landmarks and pasting need --align")
    if not args.paste_back and given.keys() & {"feather", "shape", "mask", "mask_weights"}:
        raise InputError("--feather, --paste-shape and --paste-mask need --paste-back")
    if args.paste_mask_weights and not args.paste_mask:
        raise InputError("--paste-mask-weights needs --paste-mask")
    report = invert_files(
        args.weights,
        args.input,
        args.out,
        num_iterations=args.steps,
        dtype=args.dtype,
        batch_size=args.batch_size,
        alignment=Alignment(**given) if args.align else None,
        max_skipped=args.max_skipped,
        workers=args.workers,
        shard=find_shard(args.shard),
        command=args.argv,
    )
    if report["status"] != "done":
        print(f"{args.out}: inverted {report['num_images']} images, {report['num_left']} are left")
        return 0
    print(f"{args.out}: inverted {report['num_images']} images in {report['seconds']:.1f} s")
    return 0
