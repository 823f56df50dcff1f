"""Writes users' own pictures with masks as a TFDS data set (array_record, no TensorFlow)."""

import functools
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from interestyle_jax.data import dataset_writer
from interestyle_jax.data.avatars.variation import Draws
from interestyle_jax.data.pictures import (
    encode_png,
    list_pictures,
    read_mask,
    read_picture,
    resize_picture,
)
from interestyle_jax.errors import InputError

SPLITS = ("train", "validation", "test")
_LISTED = 10


def write_folder(
    images: Path,
    masks: Path,
    out: Path,
    *,
    size: int,
    face_masks: Path | None = None,
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Writes the pictures of a directory with their masks to the data set `out`; returns `out`.

    A mask belongs to the picture of the same name up to the suffix. Both are cropped to the
    central square and scaled to `size` pixels; a mask pixel of the data set is 255 where at least
    half of it was. Fields: image, interest_mask, face_mask (with `face_masks`), name, id. The
    pictures are dealt to the splits by `seed`; `validation` and `test` are numbers of pictures
    (None: 5 % each, at least one).

    Raises InputError naming every (up to ten) picture without mask, unreadable or cut-off file,
    mask of another size and mask that is empty after cropping; nothing is written then.
    """
    dataset_writer.check_free(Path(out), force)
    if not 8 <= size <= 4096:
        raise InputError(f"size: {size} is outside 8 ... 4096 pixels")
    pictures = list_pictures(images)
    folders = {"interest_mask": masks}
    if face_masks is not None:
        folders["face_mask"] = face_masks
    rows, problems = _paired(pictures, folders)
    read = functools.partial(_read, size)
    count = (os.cpu_count() or 1) if workers is None else workers
    numbered = list(enumerate(rows))
    checked = dataset_writer.in_order(
        functools.partial(_problem, read), numbered, workers=count, label="check"
    )
    problems += [problem for problem in checked if problem is not None]
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError("; ".join(problems[:_LISTED]) + more)
    dealt = {
        split: [numbered[index] for index in indices]
        for split, indices in _deal(len(rows), validation, test, seed).items()
    }
    return dataset_writer.write_dataset(
        lambda data_dir: Folder(
            data_dir=data_dir, size=size, fields=tuple(folders), read=read, dealt=dealt,
            workers=count,
        ),
        Path(out),
        force=force,
    )  # fmt: skip


class Folder(tfds.core.GeneratorBasedBuilder):
    """Pictures and masks of a folder as TFDS examples (PNG)."""

    name = "folder"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, size: int, fields: tuple[str, ...], read, dealt, workers: int, **kwargs):
        self._size, self._fields, self._read = size, fields, read
        self._dealt, self._workers = dealt, workers
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self._size
        mask = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            **dict.fromkeys(self._fields, mask),
            "name": tfds.features.Text(),
            "id": np.int64,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures with masks of the interest region.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(size=size),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in self._dealt}

    def _generate_examples(self, split: str):
        rows = dataset_writer.in_order(
            self._read, self._dealt[split], workers=self._workers, label=split
        )
        yield from enumerate(rows)


def _paired(pictures: list[Path], folders: dict[str, Path]) -> tuple[list[dict], list[str]]:
    """-> one dict of paths a picture, and the pictures that lack a mask."""
    found = {
        field: {path.stem: path for path in list_pictures(folder)}
        for field, folder in folders.items()
    }
    rows, problems = [], []
    for picture in pictures:
        row = {"image": picture}
        for field, paths in found.items():
            if picture.stem in paths:
                row[field] = paths[picture.stem]
            else:
                what = field.replace("_", " ")
                problems.append(f"{picture}: has no {what} in {folders[field]}")
        if len(row) == 1 + len(folders):
            rows.append(row)
    return rows, problems


def _read(size: int, numbered: tuple[int, dict[str, Path]]) -> dict:
    """Reads one picture with its masks, checked and scaled, as PNG bytes."""
    index, row = numbered
    picture = read_picture(row["image"])
    example = {"image": encode_png(resize_picture(picture, size)), "id": index}
    for field, path in row.items():
        if field == "image":
            continue
        mask = read_mask(path)
        if mask.shape[:2] != picture.shape[:2]:
            (h, w), (ph, pw) = mask.shape[:2], picture.shape[:2]
            raise InputError(f"{path}: mask is {w}x{h}, its picture {row['image'].name} {pw}x{ph}")
        scaled = np.where(resize_picture(mask, size) >= 128, 255, 0).astype(np.uint8)
        if not scaled.any():
            raise InputError(f"{path}: mask is empty, expected some pixels of 128 or more")
        dataset_writer.check_picture(scaled, size, 1, str(path))
        example[field] = encode_png(scaled)
    example["name"] = row["image"].stem
    return example


def _problem(read, numbered: tuple[int, dict[str, Path]]) -> str | None:
    try:
        read(numbered)
    except InputError as error:
        return str(error)
    return None


def _deal(count: int, validation: int | None, test: int | None, seed: int) -> dict[str, list[int]]:
    """Deals 0 ... count - 1 to the splits; empty splits are left out."""
    share = max(1, round(0.05 * count))
    sizes = [share if wanted is None else wanted for wanted in (validation, test)]
    if min(sizes) < 0 or sum(sizes) >= count:
        raise InputError(
            f"{count} pictures cannot give {sizes[0]} for validation, {sizes[1]} for test and "
            "some for training: set --validation and --test"
        )
    order = np.argsort(Draws(seed).array(count), kind="stable").tolist()
    cuts = [0, sizes[0], sizes[0] + sizes[1]]
    dealt = {
        "train": sorted(order[cuts[2] :]),
        "validation": sorted(order[: cuts[1]]),
        "test": sorted(order[cuts[1] : cuts[2]]),
    }
    return {split: dealt[split] for split in SPLITS if dealt[split]}
