"""The command `interestyle edit`; `jobs.edits` does the work."""

import argparse

from interestyle_jax.commands.options import (
    add_job_options,
    add_model_options,
    add_out_option,
    add_row_options,
    count,
    run_options,
    signed_numbers,
)
from interestyle_jax.commands.photo_options import add_photo_options, alignment_of
from interestyle_jax.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "edit",
        help="edit images, or latents of images",
        description="Moves latents along directions and draws them at several strengths. The same "
        "command continues after a stop.",
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", metavar="IMAGE_OR_DIR", help="images, which are inverted first")
    parser.add_argument(
        "--latents", metavar="FILE_OR_DIR", help="latents.npz of `invert`, or its folder"
    )
    add_out_option(parser)
    parser.add_argument(
        "--direction",
        action="append",
        default=[],
        metavar="NAME_OR_FILE[:STRENGTH]",
        help="may be given several times; with a strength of its own it has it in all columns",
    )
    parser.add_argument(
        "--strength",
        type=signed_numbers,
        metavar="A,B,...",
        help="one column each (default the ends of the direction's range and 0, else -3,0,3)",
    )
    text = parser.add_argument_group("edits by text (StyleCLIP)")
    text.add_argument(
        "--text", action="append", default=[], metavar="TEXT", help='"a face with a beard"'
    )
    text.add_argument("--neutral", metavar="TEXT", help='without it (default "a face")')
    text.add_argument(
        "--clip", metavar="NAME_OR_DIR", help="weights of a CLIP (default avatar_clip)"
    )
    text.add_argument(
        "--channels",
        metavar="NAME_OR_DIR",
        help="of `directions global`, or fs3.npy converted (default avatar_channels)",
    )
    text.add_argument(
        "--beta", type=float, metavar="B", help="channels that agree less stay (default by number)"
    )
    text.add_argument("--num-channels", type=count, metavar="N", help="in place of --beta")
    text.add_argument(
        "--templates", metavar="FILE", help="sentences with {} for the texts; imagenet: CLIP's own"
    )
    text.add_argument(
        "--mapper",
        action="append",
        default=[],
        metavar="NAME_OR_DIR[:STRENGTH]",
        help="weights of a trained mapper; StyleCLIP's strength is 0.1 (repeatable)",
    )
    add_row_options(parser, default="the direction's own, else all")
    parser.add_argument(
        "--absolute",
        action="store_true",
        help="strengths are coordinates to reach, not steps (GANSpace's way)",
    )
    parser.add_argument(
        "--other-generator",
        action="store_true",
        help="take latents and directions that were made for another generator",
    )
    parser.add_argument(
        "--tuned",
        metavar="DIR",
        help="folder of `invert --method=pti`: each latent is drawn by its own generator",
    )
    add_model_options(parser)
    parser.add_argument("--batch-size", type=count, help="images at once (default 8 a device)")
    add_job_options(parser)
    region = parser.add_argument_group("what stays")
    region.add_argument(
        "--keep",
        metavar="REGION",
        help="edit inside this region, the rest stays: interest, face, or labels of the provider",
    )
    region.add_argument(
        "--keep-masks",
        metavar="PROVIDER_OR_DIR",
        help="where the region comes from: a mask provider, or a folder of masks (default selfie)",
    )
    region.add_argument(
        "--keep-masks-weights", metavar="NAME_OR_DIR", help="the provider's weights or model"
    )
    region.add_argument(
        "--keep-feather",
        type=float,
        metavar="SHARE",
        help="width of its soft edge as a share of the image's side (default 0.05)",
    )
    measured = parser.add_argument_group("what is measured")
    measured.add_argument("--identity", metavar="NAME_OR_DIR", help="embedder, e.g. CurricularFace")
    measured.add_argument("--face-detector", metavar="NAME_OR_DIR", help="MTCNN weights")
    measured.add_argument(
        "--attributes",
        metavar="NAME_OR_DIR",
        help="a reader of attributes (configs/avatar_attributes.py), for the report",
    )
    add_photo_options(parser, result="the edit")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.editing.bands import parse_rows
    from interestyle_jax.jobs.edits import edit_files
    from interestyle_jax.jobs.kept_region import Keep
    from interestyle_jax.jobs.text_edits import mapper_edit, text_edit

    kept = {"masks": args.keep_masks, "weights": args.keep_masks_weights}
    kept |= {"feather": args.keep_feather}
    kept = {name: value for name, value in kept.items() if value is not None}
    if kept and args.keep is None:
        raise InputError("--keep-masks and --keep-feather need --keep")
    names = ("neutral", "clip", "channels", "beta", "num_channels", "templates")
    asked = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if asked and not args.text:
        raise InputError(f"--{min(asked).replace('_', '-')}: needs --text")
    asked["other_generator"] = args.other_generator
    by_text = [text_edit(text, **asked) for text in args.text]
    by_text += [mapper_edit(given) for given in args.mapper]
    report = edit_files(
        args.weights,
        args.out,
        edits=[*args.direction, *by_text],
        source=args.input,
        latents=args.latents,
        strengths=args.strength,
        rows=None if args.rows is None else parse_rows(args.rows),
        bands=args.bands,
        absolute=args.absolute,
        other_generator=args.other_generator,
        tuned=args.tuned,
        num_iterations=args.steps,
        dtype=args.dtype,
        batch_size=args.batch_size,
        alignment=alignment_of(args),
        keep=None if args.keep is None else Keep(args.keep, **kept),
        identity=args.identity,
        face_detector=args.face_detector,
        attributes=args.attributes,
        **run_options(args),
    )
    if report["status"] != "done":
        print(f"{args.out}: edited {report['num_images']} images, {report['num_left']} are left")
        return 0
    print(f"{args.out}: edited {report['num_images']} images in {report['seconds']:.1f} s")
    return 0
