"""Writes the avatar world as a TFDS data set (array_record, no TensorFlow)."""

import functools
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from interestyle_jax.data import avatars
from interestyle_jax.data.dataset_writer import check_picture, in_order, write_dataset
from interestyle_jax.data.pictures import encode_png
from interestyle_jax.errors import InputError

PICTURE_FIELDS = ("image", "clean")
MASK_FIELDS = ("interest_mask", "face_mask", "interest_mask_full", "face_mask_full")
VERSION = "1.0.0"


def encoded_sample(
    index: int, *, size: int, split: str, seed: int, style: str, clean_only: bool
) -> dict:
    """Draws one sample with its pictures as PNG bytes (runs in the worker processes)."""
    options = {"size": size, "split": split, "seed": seed, "style": style}
    if clean_only:
        drawn = avatars.clean_sample(index, **options)
        picture = check_picture(drawn["clean"], size, 3, f"clean {index}")
        return {"clean": encode_png(picture), "id": index}
    drawn = avatars.sample(index, **options)
    for name in PICTURE_FIELDS + MASK_FIELDS:
        channels = 3 if name in PICTURE_FIELDS else 1
        drawn[name] = encode_png(check_picture(drawn[name], size, channels, f"{name} {index}"))
    return drawn


class Avatars(tfds.core.GeneratorBasedBuilder):
    """The avatar world as TFDS examples: pictures and masks as PNG, labels as text and numbers.

    `sizes` maps split names to numbers of examples. The splits draw from disjoint seeds. With
    `clean_only` an example is only the clean picture and its id.
    """

    name = "avatars"
    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        size: int = 64,
        sizes: dict[str, int],
        seed: int = 0,
        style: str = "toon-head",
        clean_only: bool = False,
        workers: int = 0,
        **kwargs,
    ):
        self._size, self._sizes, self._seed = size, dict(sizes), seed
        self._style, self._clean_only, self._workers = style, clean_only, workers
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        picture = tfds.features.Image(shape=(self._size, self._size, 3), encoding_format="png")
        mask = tfds.features.Image(shape=(self._size, self._size, 1), encoding_format="png")
        features: dict = {"clean": picture, "id": np.int64}
        if not self._clean_only:
            features["image"] = picture
            features.update(dict.fromkeys(MASK_FIELDS, mask))
            features["obstacle"] = tfds.features.Text()
            features["background"] = tfds.features.Text()
            labels = avatars.clean_sample(0, size=16, style=self._style)["labels"]
            features["labels"] = {
                name: tfds.features.Text() if isinstance(value, str) else np.float32
                for name, value in labels.items()
            }
        facts = avatars.STYLES[self._style]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn heads with exact masks, busy backgrounds and obstacles.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://www.dicebear.com",
            license=f"{facts.licence} (style {facts.name} by {facts.creator}, DiceBear)",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                style=self._style,
                seed=self._seed,
                size=self._size,
                clean_only=self._clean_only,
            ),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split, n) for split, n in self._sizes.items()}

    def _generate_examples(self, split: str, count: int):
        render = functools.partial(
            encoded_sample,
            size=self._size,
            split=split,
            seed=self._seed,
            style=self._style,
            clean_only=self._clean_only,
        )
        for example in in_order(render, range(count), workers=self._workers, label=split):
            yield example["id"], example


def write_avatars(
    out: Path,
    *,
    sizes: dict[str, int],
    size: int = 64,
    seed: int = 0,
    style: str = "toon-head",
    clean_only: bool = False,
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Writes an avatar data set to the directory `out` and returns it.

    `sizes` maps the splits ('train', 'validation', 'test') to numbers of examples; `size` is the
    side of the pictures in pixels; `workers` processes render (None: one a core, 0: this one).

    Raises InputError for an unknown split or style, a bad size, or an existing `out`.
    """
    for split, count in sizes.items():
        if split not in avatars.SPLITS:
            raise InputError(f"split: '{split}' is none of {', '.join(avatars.SPLITS)}")
        if count < 0:
            raise InputError(f"{split}: {count} examples asked for, expected 0 or more")
    if not any(sizes.values()):
        raise InputError("train, validation, test: no examples asked for")
    # An unknown style or a bad size ends here, before anything is written.
    avatars.clean_sample(0, size=size, style=style)
    count = (os.cpu_count() or 1) if workers is None else workers
    make = functools.partial(
        _builder,
        size=size,
        sizes={split: n for split, n in sizes.items() if n > 0},
        seed=seed,
        style=style,
        clean_only=clean_only,
        workers=count,
    )
    return write_dataset(make, out, force=force)


def _builder(data_dir: str, **options) -> Avatars:
    return Avatars(data_dir=data_dir, **options)
