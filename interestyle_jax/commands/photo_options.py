"""Options of commands that align the faces of photographs and paste results back."""

import argparse
from typing import Any

from interestyle_jax.commands.options import add_landmark_options
from interestyle_jax.errors import InputError


def add_photo_options(parser: argparse.ArgumentParser, *, result: str) -> None:
    """What `invert` and `edit` say of photographs; `result` is what they paste back."""
    photos = parser.add_argument_group("photographs")
    photos.add_argument(
        "--align", action="store_true", help="take each photograph's face, aligned as in FFHQ"
    )
    add_landmark_options(photos)
    photos.add_argument(
        "--paste-back",
        action="store_true",
        help=f"also write the photograph with {result} in it (_pasted.png)",
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


def alignment_of(args: argparse.Namespace) -> Any:
    """The `Alignment` that `add_photo_options` gave, or None.

    Raises:
      InputError: options without the one that they belong to.
    """
    from interestyle_jax.jobs.aligned_faces import Alignment

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
    return Alignment(**given) if args.align else None
