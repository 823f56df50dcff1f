"""Options of commands that align the faces of photographs and paste results back."""

import argparse
from typing import Any

from interestyle_jax.commands.job_options import take
from interestyle_jax.errors import InputError


def add_landmark_options(parser: argparse._ActionsContainer) -> None:
    """What finds faces in photographs."""
    parser.add_argument(
        "--landmarks", choices=("litert", "dlib"), help="what finds eyes and mouth (default litert)"
    )
    parser.add_argument(
        "--dlib-file", metavar="FILE", help="dlib's shape_predictor_68_face_landmarks.dat"
    )


def add_photo_options(parser: argparse.ArgumentParser, *, result: str | None = None) -> None:
    """What is said of photographs; `result` is what may be pasted back, None where nothing is."""
    photos = parser.add_argument_group("photographs")
    photos.add_argument(
        "--align", action="store_true", help="take each photograph's face, aligned as in FFHQ"
    )
    add_landmark_options(photos)
    if result is None:
        return
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
        "--paste-shape",
        dest="shape",
        choices=("square", "ellipse"),
        help="what is pasted (default square)",
    )
    photos.add_argument(
        "--paste-mask",
        dest="mask",
        metavar="PROVIDER",
        help="paste the interest region only: selfie, segformer, detr or graphonomy",
    )
    photos.add_argument(
        "--paste-mask-weights",
        dest="mask_weights",
        metavar="NAME_OR_DIR",
        help="the provider's weights or model",
    )


def take_alignment(arguments: dict[str, Any]) -> Any:
    """The `Alignment` that photographs are to have, None for none; its options are taken away.

    Raises:
      InputError: options without the one that they belong to.
    """
    from interestyle_jax.jobs.aligned_faces import Alignment

    is_aligned, pastes = arguments.pop("align"), arguments.pop("paste_back", False)
    given = take(arguments, ("landmarks", "dlib_file"))
    pasting = take(arguments, ("feather", "shape", "mask", "mask_weights"))
    if (given or pasting or pastes) and not is_aligned:
        raise InputError("options of landmarks and pasting need --align")
    if pasting and not pastes:
        raise InputError("--feather, --paste-shape and --paste-mask need --paste-back")
    if "mask_weights" in pasting and "mask" not in pasting:
        raise InputError("--paste-mask-weights needs --paste-mask")
    return Alignment(paste_back=pastes, **given, **pasting) if is_aligned else None
