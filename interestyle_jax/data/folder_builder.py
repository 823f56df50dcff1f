"""Writes images with mask files as a TFDS data set (array_record, no TensorFlow)."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from interestyle_jax.data.build import Source
from interestyle_jax.data.dataset_writer import check_free, write_dataset
from interestyle_jax.data.images import (
    JPEG_QUALITY,
    central_square,
    encode_jpeg,
    encode_png,
    read_image,
    read_mask,
    resize_image,
)
from interestyle_jax.data.layouts import SPLITS, Images, list_tree
from interestyle_jax.data.shards import Skipped, check_image
from interestyle_jax.errors import InputError
from interestyle_jax.one_line import one_line

# zlib's level 6 takes four times as long for 5 % less.
ENCODINGS: dict[str, Callable[[np.ndarray], bytes]] = {
    "jpeg": encode_jpeg,
    "png": functools.partial(encode_png, compress_level=2),
}
_DIGITS = re.compile(r"(\d+)")


@dataclasses.dataclass(frozen=True)
class Photos:
    """Images and where their masks lie.

    Attributes:
      images: paths by split.
      interest_masks: directory of the interest masks, or None for a set without masks.
      face_masks: directory of the face masks, or None.
    """

    images: Images
    interest_masks: Path | None
    face_masks: Path | None = None

    def mask_folders(self) -> dict[str, Path]:
        """{field: directory}. A directory of `interestyle masks` stands for those in it.

        Raises InputError for face masks without interest masks.
        """
        if self.interest_masks is None:
            if self.face_masks is not None:
                raise InputError(f"{self.face_masks}: face masks need interest masks beside them")
            return {}
        interest, face = Path(self.interest_masks), self.face_masks
        if (interest / "interest").is_dir():
            if face is None and (interest / "face").is_dir():
                face = interest / "face"
            interest = interest / "interest"
        return {"interest_mask": interest} | ({"face_mask": Path(face)} if face else {})


def write_photos(
    photos: Photos,
    out: Path,
    *,
    size: int,
    held_out: Photos | None = None,
    only: str | None = None,
    encoding: str = "jpeg",
    max_skipped: float = 0.01,
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Writes images with their masks to the data set `out` and returns it.

    A mask belongs to the image of the same name up to the suffix, and has its size. Both are
    cropped to the central square and scaled to `size` pixels by `resize_image`, as inputs of
    encoders are; a mask pixel of the data set is 255 where that gives at least half. Fields: image,
    interest_mask and face_mask (where given), name, id (the place in the order of the names).
    Images are stored as JPEG of quality 95 without chroma subsampling or as PNG, masks as PNG.

    Args:
      photos: the images; `held_out`, other images: these become the split "validation". A
        field is there where both have it.
      out: directory to write; `force` replaces a data set.
      size: side in pixels, 8 ... 4096.
      only: keep this split alone.
      encoding: "jpeg" or "png".
      max_skipped: share of images that may be skipped (no mask, unreadable or cut off, mask of
        another size, empty mask); `report.json` lists them.
      workers: processes (None: one a core, 0: this one).

    Raises InputError when more is skipped, naming the first ten, and as `write_dataset`.
    """
    check_free(Path(out), force)
    check_options(size=size, encoding=encoding, max_skipped=max_skipped)
    check_splits(photos.images, held_out is not None, only)
    fields = _mask_fields(photos, held_out)
    rows, skipped, notes = _rows(photos, fields, 0)
    if held_out is not None:
        start = sum(len(paths) for paths in photos.images.splits.values())
        others, more, other_notes = _rows(held_out, fields, start)
        rows["validation"] = [row for split in others.values() for row in split]
        skipped["validation"] = [entry for entries in more.values() for entry in entries]
        notes += other_notes
    rows = {split: rows[split] for split in SPLITS if split in rows}
    if only is not None:
        rows = {only: rows[only]}
    pairs = {split: [(row, _identity(row)) for row in chosen] for split, chosen in rows.items()}
    source = Source(
        name="photos",
        features=_features(size, encoding, fields),
        splits=pairs,
        make=functools.partial(photo_example, size=size, encoding=encoding),
        options={
            "size": size,
            "resize": "bilinear",
            "encoding": encoding,
            "quality": JPEG_QUALITY if encoding == "jpeg" else None,
            "layout": photos.images.layout,
        },
        size=size,
        sources=sorted(
            (f"{split}/{field}/{file}", size)
            for split, chosen in pairs.items()
            for _, (_, _, files) in chosen
            for field, file, size, _ in files
        ),
        skipped=[entry for split in rows for entry in skipped[split]],
        notes=notes,
        description="Images with masks of the interest region.",
    )
    count = (os.cpu_count() or 1) if workers is None else workers
    return write_dataset(source, Path(out), workers=count, force=force, max_skipped=max_skipped)


def check_options(*, size: int, encoding: str, max_skipped: float) -> None:
    """Raises InputError when an option of `write_photos` is outside its range."""
    if not 8 <= size <= 4096:
        raise InputError(f"size: {size} is outside 8 ... 4096 pixels")
    if encoding not in ENCODINGS:
        raise InputError(f"encoding: '{encoding}' is none of {', '.join(ENCODINGS)}")
    if not 0 <= max_skipped < 1:
        raise InputError(f"--max-skipped: {max_skipped:g} is outside 0 ... 1 (a share)")


def check_splits(images: Images, has_held_out: bool, only: str | None) -> None:
    """Raises InputError for a validation split of two kinds of images, or none named `only`."""
    splits = set(images.splits)
    if has_held_out and "validation" in splits:
        raise InputError("validation: comes from other images, so none may be dealt to it here")
    splits |= {"validation"} if has_held_out else set()
    if only not in (None, *splits):
        raise InputError(
            f"--only: there is no split '{only}' (there is {', '.join(sorted(splits))})"
        )


def photo_example(row: dict[str, Any], *, size: int, encoding: str) -> dict | Skipped:
    """Reads one image with its masks, checks and scales them (runs in the worker processes).

    Args:
      row: {"id", "name", "files": {field: path}}; the field "image" is the image.
      size: side in pixels of what is stored.
      encoding: of the image, one of ENCODINGS.

    Returns:
      {field: encoded bytes, "id", "name"}, or why the image cannot be used.
    """
    files, name = row["files"], row["name"]
    try:
        image = read_image(files["image"])
    except InputError as error:
        return Skipped(name, "unreadable image", str(error))
    scaled = resize_image(central_square(image), (size, size))
    scaled = check_image(scaled, size, 3, str(files["image"]))
    example = {"image": ENCODINGS[encoding](scaled), "name": one_line(name), "id": row["id"]}
    for field, path in files.items():
        if field == "image":
            continue
        try:
            mask = read_mask(path)
        except InputError as error:
            return Skipped(name, "unreadable mask", str(error))
        if mask.shape[:2] != image.shape[:2]:
            (h, w), (ph, pw) = mask.shape[:2], image.shape[:2]
            reason = f"{path}: mask is {w}x{h}, its image {files['image'].name} {pw}x{ph}"
            return Skipped(name, "mask of another size", reason)
        share = resize_image(central_square(mask), (size, size))
        inside = np.where(share >= 128, 255, 0).astype(np.uint8)
        if not inside.any():
            reason = f"{path}: mask is empty, expected some pixels of 128 or more"
            return Skipped(name, "empty mask", reason)
        example[field] = encode_png(check_image(inside, size, 1, str(path)))
    return example


def _mask_fields(photos: Photos, held_out: Photos | None) -> tuple[str, ...]:
    """The kinds of masks that all images have. Raises InputError where that is not interest."""
    own = photos.mask_folders()
    if held_out is None:
        return tuple(own)
    others = held_out.mask_folders()
    if ("interest_mask" in own) != ("interest_mask" in others):
        raise InputError("validation masks: expected interest masks of all images, or of none")
    return tuple(field for field in own if field in others)


def _rows(
    photos: Photos, fields: tuple[str, ...], start: int
) -> tuple[dict[str, list[dict]], dict[str, list[Skipped]], list[str]]:
    """-> rows by split (ids count from `start`), images that lack a mask by split, notes."""
    given = photos.mask_folders()
    folders = {field: given[field] for field in fields}
    masks = {
        field: {path.stem: path for path in list_tree(folder)} for field, folder in folders.items()
    }
    splits = photos.images.splits
    names = sorted((p.stem for paths in splits.values() for p in paths), key=_natural)
    ids = {name: index for index, name in enumerate(names, start)}
    rows: dict[str, list[dict]] = {split: [] for split in splits}
    skipped: dict[str, list[Skipped]] = {split: [] for split in splits}
    for split, paths in splits.items():
        for path in paths:
            missing = [field for field in folders if path.stem not in masks[field]]
            if missing:
                what = missing[0].replace("_", " ")
                reason = f"{path}: has no {what} in {folders[missing[0]]}"
                skipped[split].append(Skipped(path.stem, f"no {what}", reason))
                continue
            files = {"image": path} | {field: masks[field][path.stem] for field in folders}
            rows[split].append({"id": ids[path.stem], "name": path.stem, "files": files})
    notes = list(photos.images.notes)
    if given.keys() - folders.keys():
        notes.append("face masks are left out, since only some images have them")
    for field, found in masks.items():
        unused = len(found.keys() - ids.keys())
        if unused:
            notes.append(f"{unused} files in {folders[field].name} belong to no image used here")
    return rows, skipped, notes


def _identity(row: dict[str, Any]) -> list:
    """What identifies the files that an example was made of."""
    files = []
    for field, path in row["files"].items():
        stat = path.stat()
        files.append([field, path.name, stat.st_size, stat.st_mtime_ns])
    return [row["id"], row["name"], files]


def _natural(name: str) -> list:
    """Orders names by their numbers: p2 before p10."""
    # Odd parts are the digits; `str.isdigit` takes some that `int` does not, as in 5².
    return [int(part) if i % 2 else part for i, part in enumerate(_DIGITS.split(name))]


def _features(size: int, encoding: str, fields: tuple[str, ...]) -> dict[str, Any]:
    mask = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
    return {
        "image": tfds.features.Image(shape=(size, size, 3), encoding_format=encoding),
        **dict.fromkeys(fields, mask),
        "name": tfds.features.Text(),
        "id": np.int64,
    }
