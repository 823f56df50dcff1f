"""Data sets of photographs: their images found, their masks made where there are none, written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interestyle_jax.data.dataset_writer import check_free
from interestyle_jax.data.folder_builder import Photos, check_options, check_splits, write_photos
from interestyle_jax.data.layouts import Images, detect_layout, find_images, held_out_images
from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import PROVIDERS, provider_options
from interestyle_jax.jobs.masks import write_masks

# What `masks` may be besides a folder and a provider.
NO_MASKS = "none"


def write_photo_set(
    images: Path,
    out: Path,
    *,
    masks: str,
    face_masks: Path | None = None,
    mask_options: Mapping[str, Any] | None = None,
    layout: str = "auto",
    class_name: str | None = None,
    mapping: Path | None = None,
    splits: str | None = None,
    validation: int | None = None,
    test: int | None = None,
    only: str | None = None,
    validation_images: Path | None = None,
    validation_masks: str | None = None,
    validation_face_masks: Path | None = None,
    size: int = 256,
    encoding: str = "jpeg",
    max_skipped: float = 0.01,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Writes a data set that `train` and `evaluate` read; masks of a provider go beside it.

    Args:
      images: folder of the images.
      out: the data set's directory.
      masks: folder of interest masks of the same names, a provider's name, or "none".
      face_masks: folder of face masks, or None.
      mask_options: the provider's options.
      layout, class_name, mapping, splits, validation, test, seed: as `layouts.find_images`, where
        `splits` is its `dealing`.
      only: write this split alone.
      validation_images: folder of other images for the validation split, which `validation_masks`
        and `validation_face_masks` belong to.
      size, encoding, max_skipped, workers, force: as `folder_builder.write_photos`.

    Returns:
      The directory.

    Raises:
      InputError: whatever is wrong with these; all but the masks is checked before a provider
        starts, which may take hours.
      MachineError: the disk is full or fails.
    """
    options: dict[str, Any] = {"size": size, "encoding": encoding, "max_skipped": max_skipped}
    check_free(out, force)
    check_options(**options)
    apart = validation_images is not None
    if not apart and (validation_masks or validation_face_masks):
        raise InputError("--validation-masks: --validation-images required with them")
    if apart and only is not None:
        raise InputError("--only: not with --validation-images, which adds a split")
    if apart and splits is None:
        kind = detect_layout(images) if layout == "auto" else layout
        splits = "official" if kind in ("celebahq", "afhq") else "train"
    found = find_images(
        images,
        layout=layout,
        dealing=splits,
        class_name=class_name,
        mapping=None if apart else mapping,
        validation=validation if not apart else None if splits == "train" else 0,
        test=test,
        seed=seed,
    )
    check_splits(found, apart, only)
    others = None
    if apart:
        others = held_out_images(
            validation_images, class_name=class_name, mapping=mapping, count=validation
        )
        if validation_masks is None and masks != NO_MASKS:
            raise InputError("--validation-images: --validation-masks required with it")
    used = {masks, validation_masks} & set(PROVIDERS)

    def with_masks(
        own: Images, masks: str, face_masks: Path | None, suffix: str, split: str | None
    ) -> Photos:
        """The images with the masks that lie in a folder, or are made here for one split or all."""
        if masks == NO_MASKS:
            return Photos(own, None, face_masks)
        if masks not in PROVIDERS:
            if Path(masks).is_dir():
                return Photos(own, Path(masks), face_masks)
            names = ", ".join(PROVIDERS)
            raise InputError(
                f"--{suffix}: '{masks}' is no directory and none of {names}, {NO_MASKS}"
            )
        folder = out.with_name(f"{out.name}-{suffix}")
        # Options of the other images' provider are none of this one's.
        foreign = {name for other in used - {masks} for name in provider_options(other)}
        foreign -= set(provider_options(masks))
        given = {k: v for k, v in (mask_options or {}).items() if k not in foreign}
        if masks == "celebamask" and "labels" not in given:
            given["labels"] = _parts_folder(own)
        # Of CelebA-HQ one often wants the 2,824 test images alone.
        chosen = [paths for name, paths in own.splits.items() if split in (None, name)]
        report = write_masks(
            [path for paths in chosen for path in paths],
            folder,
            provider=masks,
            options=given,
            max_skipped=max_skipped,
            workers=workers,
        )
        print(f"{folder}: masks of {report['num_images']} images; look at its overlays")
        return Photos(own, folder, face_masks)

    photos = with_masks(found, masks, face_masks, "masks", only)
    held_out = None
    if others is not None:
        own = validation_masks or NO_MASKS
        held_out = with_masks(others, own, validation_face_masks, "validation-masks", "validation")
    return write_photos(
        photos, out, held_out=held_out, only=only, workers=workers, force=force, **options
    )


def _parts_folder(images: Images) -> Path:
    """CelebAMask-HQ's parts beside the images, as its archive has them."""
    first = next(path for paths in images.splits.values() for path in paths)
    folder = first.parent.parent / "CelebAMask-HQ-mask-anno"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such directory; give the parts or label maps as "
            "--masks-option=labels=DIR"
        )
    return folder
