"""Writes the avatar world as a TFDS data set (array_record, no TensorFlow)."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from interestyle_jax.data import avatars
from interestyle_jax.data.build import Source
from interestyle_jax.data.dataset_writer import write_dataset
from interestyle_jax.data.images import encode_png
from interestyle_jax.data.shards import check_image
from interestyle_jax.errors import InputError

IMAGE_FIELDS = ("image", "clean")
MASK_FIELDS = ("interest_mask", "face_mask", "interest_mask_full", "face_mask_full")


def drawn_example(
    place: tuple[str, int], *, size: int, seed: int, style: str, clean_only: bool
) -> dict:
    """Draws example (split, index), its images as PNG bytes (runs in the worker processes)."""
    split, index = place
    options: dict[str, Any] = {"size": size, "split": split, "seed": seed, "style": style}
    if clean_only:
        drawn = avatars.clean_sample(index, **options)
        image = check_image(drawn["clean"], size, 3, f"clean {index}")
        return {"clean": encode_png(image), "id": index, "factors": drawn["factors"]}
    drawn = avatars.sample(index, **options)
    for name in IMAGE_FIELDS + MASK_FIELDS:
        channels = 3 if name in IMAGE_FIELDS else 1
        drawn[name] = encode_png(check_image(drawn[name], size, channels, f"{name} {index}"))
    return drawn


def _features(*, size: int, style: str, clean_only: bool) -> dict:
    image = tfds.features.Image(shape=(size, size, 3), encoding_format="png")
    mask = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
    first = avatars.clean_sample(0, size=16, style=style)
    factors = tfds.features.Tensor(shape=first["factors"].shape, dtype=np.float32)
    features: dict = {"clean": image, "id": np.int64, "factors": factors}
    if clean_only:
        return features
    labels = first["labels"]
    return (
        features
        | dict.fromkeys(MASK_FIELDS, mask)
        | {
            "image": image,
            "obstacle": tfds.features.Text(),
            "background": tfds.features.Text(),
            "labels": {
                name: tfds.features.Text() if isinstance(value, str) else np.float32
                for name, value in labels.items()
            },
        }
    )


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
    side of the images in pixels; `workers` processes render (None: one a core, 0: this one).

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
    options: dict[str, Any] = {"size": size, "seed": seed, "style": style, "clean_only": clean_only}
    facts = avatars.STYLES[style]
    source = Source(
        name="avatars",
        features=_features(size=size, style=style, clean_only=clean_only),
        splits={
            split: [((split, index), index) for index in range(n)]
            for split, n in sizes.items()
            if n > 0
        },
        make=functools.partial(drawn_example, **options),
        options=options,
        size=size,
        description="Drawn heads with exact masks, busy backgrounds and obstacles.",
        homepage="https://www.dicebear.com",
        licence=f"{facts.licence} (style {facts.name} by {facts.creator}, DiceBear)",
    )
    return write_dataset(source, out, workers=count, force=force)
