"""The command `interestyle data`: makes data sets that `train` and `evaluate` read."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interestyle_jax.commands.options import numbers, words
from interestyle_jax.errors import InputError

# Names that --masks takes besides directories.
NO_MASKS = "none"
_AVATAR_SIZE, _PHOTO_SIZE = 64, 256


# Options of providers that are no plain text.
_OPTION_TYPES: dict[str, Callable[[str], Any]] = {
    "threshold": float, "classes": words, "face_classes": words, "scales": numbers,
}  # fmt: skip


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`.

    Images are the command itself; `avatars` is a sub-command of it.
    """
    from interestyle_jax.data.layouts import DEALINGS, LAYOUTS, SPLITS
    from interestyle_jax.interest.providers import PROVIDERS

    parser = commands.add_parser(
        "data",
        help="prepare a data set",
        description="Makes the data sets that train and evaluate read (docs/data.md).",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--images", type=Path, metavar="DIR", help="images")
    parser.add_argument(
        "--masks",
        metavar="DIR|PROVIDER|none",
        help=f"interest masks of the same names, or who makes them: {', '.join(PROVIDERS)}",
    )
    parser.add_argument("--face-masks", type=Path, metavar="DIR", help="face masks (optional)")
    parser.add_argument(
        "--masks-option",
        action="append",
        metavar="NAME=VALUE",
        help="option of the provider, as `interestyle masks` has them (repeatable)",
    )
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="AFHQ's, e.g. wild")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="CelebA-HQ's list")
    parser.add_argument(
        "--splits", choices=DEALINGS, help="default: dealt for folders, all FFHQ to train"
    )
    parser.add_argument("--validation", type=int, metavar="N", help="images (dealt: 5 %%)")
    parser.add_argument("--test", type=int, metavar="N", help="images (dealt: 5 %%)")
    parser.add_argument("--only", choices=SPLITS, help="write this split alone")
    parser.add_argument(
        "--validation-images",
        type=Path,
        metavar="DIR",
        help="other images for validation (of CelebA-HQ its test split)",
    )
    parser.add_argument("--validation-masks", metavar="DIR|PROVIDER", help="their masks")
    parser.add_argument("--validation-face-masks", type=Path, metavar="DIR")
    parser.add_argument(
        "--encoding", choices=("jpeg", "png"), default="jpeg", help="jpeg: quality 95 (default)"
    )
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="of images that may be left out as unusable (default 0.01)",
    )
    parser.add_argument(
        "--verify", type=Path, metavar="DIR", help="compare a data set with its manifest instead"
    )
    _add_common(parser, f"side in pixels (default {_PHOTO_SIZE})")
    # Not required here: --verify goes without.
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory to write")
    commands = parser.add_subparsers(dest="source", metavar="avatars")
    world = commands.add_parser("avatars", help="draw the avatar world", allow_abbrev=False)
    world.add_argument("--train", type=int, default=2000, help="number of samples (default 2000)")
    world.add_argument("--validation", type=int, default=200, help="default 200")
    world.add_argument("--test", type=int, default=200, help="default 200")
    world.add_argument("--style", default="toon-head", help="toon-head, or personas (held out)")
    world.add_argument("--clean-only", action="store_true", help="only clean images and ids")
    world.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_common(world, f"side in pixels (default {_AVATAR_SIZE})")


def _add_common(parser: argparse.ArgumentParser, size_help: str) -> None:
    parser.add_argument("--size", type=int, metavar="N", help=size_help)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one a core; 0: none)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing data set")


def run(args: argparse.Namespace) -> int:
    """Runs `interestyle data`; returns 0. Raises InputError on bad input."""
    if args.seed < 0:
        raise InputError(f"--seed: {args.seed} is negative, expected 0 or more")
    if args.workers is not None and args.workers < 0:
        raise InputError(f"--workers: {args.workers} is negative, expected 0 or more")
    if args.source == "avatars":
        out = _avatars(args)
    elif args.verify is not None:
        from interestyle_jax.data.manifest import verify

        files = verify(args.verify)["files"]
        print(f"{args.verify}: all {len(files)} files are as in its manifest")
        return 0
    else:
        missing = [name for name in ("images", "masks", "out") if getattr(args, name) is None]
        if missing:
            named = ", ".join(f"--{name}" for name in missing)
            raise InputError(f"data: {named} required (or the sub-command avatars)")
        out = _photos(args)
    print(f"wrote {out}")
    return 0


def _avatars(args: argparse.Namespace) -> Path:
    # Imported here: TFDS takes a second.
    from interestyle_jax.data.avatar_builder import write_avatars

    return write_avatars(
        args.out,
        sizes={"train": args.train, "validation": args.validation, "test": args.test},
        size=_AVATAR_SIZE if args.size is None else args.size,
        seed=args.seed,
        style=args.style,
        clean_only=args.clean_only,
        workers=args.workers,
        force=args.force,
    )


def _photos(args: argparse.Namespace) -> Path:
    from interestyle_jax.data.dataset_writer import check_free
    from interestyle_jax.data.folder_builder import check_options, check_splits, write_photos
    from interestyle_jax.data.layouts import detect_layout, find_images, held_out_images

    options = {
        "size": _PHOTO_SIZE if args.size is None else args.size,
        "encoding": args.encoding,
        "max_skipped": args.max_skipped,
    }
    # All before a provider starts, which may take hours.
    check_free(args.out, args.force)
    check_options(**options)
    apart, dealing = args.validation_images is not None, args.splits
    if not apart and (args.validation_masks or args.validation_face_masks):
        raise InputError("--validation-masks: --validation-images required with them")
    if apart and args.only is not None:
        raise InputError("--only: not with --validation-images, which adds a split")
    if apart and dealing is None:
        layout = detect_layout(args.images) if args.layout == "auto" else args.layout
        dealing = "official" if layout in ("celebahq", "afhq") else "train"
    images = find_images(
        args.images,
        layout=args.layout,
        dealing=dealing,
        class_name=args.class_name,
        mapping=None if apart else args.mapping,
        validation=args.validation if not apart else None if dealing == "train" else 0,
        test=args.test,
        seed=args.seed,
    )
    check_splits(images, apart, args.only)
    others = None
    if apart:
        others = held_out_images(
            args.validation_images,
            class_name=args.class_name,
            mapping=args.mapping,
            count=args.validation,
        )
        if args.validation_masks is None and args.masks != NO_MASKS:
            raise InputError("--validation-images: --validation-masks required with it")
    photos = _with_masks(args, images, args.masks, args.face_masks, "masks")
    held_out = None
    if others is not None:
        masks = args.validation_masks or NO_MASKS
        held_out = _with_masks(args, others, masks, args.validation_face_masks, "validation-masks")
    return write_photos(
        photos,
        args.out,
        held_out=held_out,
        only=args.only,
        workers=args.workers,
        force=args.force,
        **options,
    )


def _with_masks(args, images, masks: str, face_masks: Path | None, suffix: str):
    """The images with their masks, which a provider makes here in a folder beside `out`."""
    from interestyle_jax.data.folder_builder import Photos
    from interestyle_jax.interest.providers import PROVIDERS

    if masks == NO_MASKS:
        return Photos(images, None, face_masks)
    if masks in PROVIDERS:
        return Photos(images, _made_masks(args, images, masks, suffix), face_masks)
    if not Path(masks).is_dir():
        raise InputError(
            f"--{suffix}: '{masks}' is no directory and none of {', '.join(PROVIDERS)}, {NO_MASKS}"
        )
    return Photos(images, Path(masks), face_masks)


def _made_masks(args, images, provider: str, suffix: str) -> Path:
    from interestyle_jax.interest.providers import PROVIDERS, provider_options
    from interestyle_jax.jobs.masks import write_masks

    folder = args.out.with_name(f"{args.out.name}-{suffix}")
    options = _provider_options(args.masks_option)
    # Options of the other images' provider are none of this one's.
    others = {args.masks, args.validation_masks} & set(PROVIDERS) - {provider}
    foreign = {name for other in others for name in provider_options(other)}
    for name in foreign - set(provider_options(provider)):
        options.pop(name, None)
    if provider == "celebamask" and "labels" not in options:
        options["labels"] = _parts_folder(images)
    # Of CelebA-HQ one often wants the 2,824 test images alone.
    own = "validation" if suffix != "masks" else args.only
    splits = [paths for split, paths in images.splits.items() if own in (None, split)]
    report = write_masks(
        [path for paths in splits for path in paths],
        folder,
        provider=provider,
        options=options,
        max_skipped=args.max_skipped,
        workers=args.workers,
    )
    print(f"{folder}: masks of {report['num_images']} images; look at its overlays")
    return folder


def _provider_options(given: list[str] | None) -> dict[str, Any]:
    options = {}
    for text in given or ():
        name, found, value = text.partition("=")
        name = name.replace("-", "_")
        if not found or not value:
            raise InputError(f"--masks-option: '{text}', expected NAME=VALUE")
        try:
            options[name] = _OPTION_TYPES.get(name, str)(value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise InputError(f"--masks-option: '{text}', expected numbers") from error
    return options


def _parts_folder(images) -> Path:
    """CelebAMask-HQ's parts beside the images, as its archive has them."""
    first = next(path for paths in images.splits.values() for path in paths)
    folder = first.parent.parent / "CelebAMask-HQ-mask-anno"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such directory; give the parts or label maps as "
            "--masks-option=labels=DIR"
        )
    return folder
