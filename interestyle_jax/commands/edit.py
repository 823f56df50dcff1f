"""The command `interestyle edit`; `jobs.edits` does the work."""

import argparse

from interestyle_jax.commands import job_options
from interestyle_jax.commands.film_options import add_film_options, print_films, take_film
from interestyle_jax.commands.options import count, signed_numbers, words
from interestyle_jax.commands.photo_options import add_photo_options, take_alignment
from interestyle_jax.errors import InputError

# What goes with --text.
_OF_TEXT = ("neutral", "clip", "channels", "beta", "num_channels", "templates")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "edit",
        help="edit images, or latents of images",
        description="Moves latents along directions and draws them at several strengths.",
    )
    job_options.add_latent_options(
        parser,
        images="images, which are inverted first",
        latents="latents.npz of `invert`, or its folder",
        metavar="IMAGE_DIR_OR_FILM",
    )
    parser.add_argument(
        "--direction",
        action="append",
        default=[],
        metavar="NAME_OR_FILE[:STRENGTH]",
        help="may be given several times; with a strength of its own it has it in all columns",
    )
    parser.add_argument(
        "--strength",
        dest="strengths",
        type=signed_numbers,
        metavar="A,B,...",
        help="one column each (default the ends of the direction's range and 0, else -3,0,3)",
    )
    text = parser.add_argument_group("edits by text")
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
        help="of `directions text` or `global`, or fs3.npy converted (default avatar_texts)",
    )
    text.add_argument(
        "--beta",
        type=float,
        metavar="B",
        help="of `global`: channels that agree less stay (default by number)",
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
    parser.add_argument(
        "--rows",
        metavar="A-B,C",
        help="rows of w_plus that change (default the direction's own, else all)",
    )
    parser.add_argument(
        "--bands", type=words, metavar="BAND,...", help="instead: coarse, middle, fine"
    )
    parser.add_argument(
        "--absolute",
        action="store_true",
        help="strengths are coordinates to reach, not steps (GANSpace's way)",
    )
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
        "--keep-masks-weights",
        dest="keep_weights",
        metavar="NAME_OR_DIR",
        help="the provider's weights or model",
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
    add_film_options(parser)
    job_options.add_run_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.editing.bands import parse_rows
    from interestyle_jax.jobs.edits import edit_files
    from interestyle_jax.jobs.kept_region import Keep
    from interestyle_jax.jobs.text_edits import mapper_edit, text_edit

    arguments = job_options.arguments_of(args)
    arguments["alignment"] = take_alignment(arguments)
    kept = job_options.take(arguments, ("keep_masks", "keep_weights", "keep_feather"))
    if kept and args.keep is None:
        raise InputError("--keep-masks and --keep-feather need --keep")
    if args.keep is not None:
        fields = {name.removeprefix("keep_"): value for name, value in kept.items()}
        arguments["keep"] = Keep(args.keep, **fields)
    if args.rows is not None:
        arguments["rows"] = parse_rows(args.rows)
    of_text = job_options.take(arguments, _OF_TEXT)
    if of_text and not args.text:
        raise InputError(f"--{min(of_text).replace('_', '-')}: needs --text")
    of_text["other_generator"] = args.other_generator
    job_options.take(arguments, ("direction", "text", "mapper"))
    texts = [text_edit(text, **of_text) for text in args.text]
    edits = [*args.direction, *texts, *map(mapper_edit, args.mapper)]
    film = take_film(arguments)
    if film is not None:
        from interestyle_jax.jobs.films import edit_film

        if job_options.take(arguments, ("latents", "tuned")):
            raise InputError("--latents, --tuned: do not go with a film as --input")
        return print_films(edit_film(edits=edits, **film, **arguments))
    return job_options.print_result(args.out, edit_files(edits=edits, **arguments), "edited")
