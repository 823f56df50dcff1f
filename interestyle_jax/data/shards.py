"""One shard of a data set: planned by content, written whole or not at all."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from jaxtyping import UInt8
from tensorflow_datasets.core import example_serializer

from interestyle_jax import __version__
from interestyle_jax.checksum import file_sha256
from interestyle_jax.data.data_format import FORMAT
from interestyle_jax.errors import InputError, MachineError, is_machine_failure, reason
from interestyle_jax.json_file import parse_json, write_json
from interestyle_jax.whole_files import sync

# A shard holds at most this many pixels of one field, and at least this many images.
_SHARD_PIXELS, _SHARD_IMAGES = 2**28, 64
_SHARDS = 64


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An image that is skipped: its name, the kind of reason, and the reason in one line."""

    name: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Shard:
    """What one shard holds.

    Attributes:
      split: its split.
      number: its place in the split, from 0.
      items: what `make` takes, one for each image.
      key: digest of the options and of what identifies the items; a finished shard of the same
        key is not written again.
    """

    split: str
    number: int
    items: Sequence[Any]
    key: str

    @property
    def name(self) -> str:
        """`SPLIT-NUMBER`, its file while the set is not finished."""
        return f"{self.split}-{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """A finished shard: how many examples and bytes, its SHA-256, and what was skipped."""

    key: str
    examples: int
    bytes: int
    sha256: str
    skipped: tuple[Skipped, ...]


def plan_shards(
    splits: Mapping[str, Sequence[tuple[Any, Any]]], *, size: int, options: Mapping[str, Any]
) -> list[Shard]:
    """Deals the (item, identity) pairs of each split to shards, in order.

    The plan depends on the arguments alone: not on the number of workers, and not on what is
    finished. Identities and options are JSON values; `size` is the images' side in pixels.
    """
    shards = []
    for split, pairs in splits.items():
        count = max(_SHARD_IMAGES, -(-len(pairs) // _SHARDS))
        count = max(1, min(count, _SHARD_PIXELS // size**2))
        for number, start in enumerate(range(0, len(pairs), count)):
            chunk = pairs[start : start + count]
            content = [
                FORMAT,
                __version__,
                split,
                dict(options),
                [identity for _, identity in chunk],
            ]
            key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            shards.append(Shard(split, number, [item for item, _ in chunk], key))
    return shards


def read_record(folder: Path, shard: Shard) -> ShardRecord | None:
    """The record of a shard that lies finished in `folder`, or None where it is to be written."""
    try:
        fields = parse_json((folder / f"{shard.name}.json").read_bytes())
        skipped = tuple(Skipped(**entry) for entry in fields.pop("skipped"))
        record = ShardRecord(skipped=skipped, **fields)
        whole = (folder / shard.name).stat().st_size == record.bytes
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return record if whole and record.key == shard.key else None


def write_shard(
    folder: Path,
    shard: Shard,
    features: tfds.features.FeaturesDict,
    make: Callable[[Any], dict | Skipped],
    each: Callable[[], None],
) -> ShardRecord:
    """Writes a shard and its record to `folder`, both under their names only when whole.

    `make` turns an item into an example of `features` (images as encoded bytes) or a reason to
    skip it; `each` is called after every item.

    Raises MachineError when the disk is full or fails, InputError when `folder` may not be written.
    """
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    temporary = folder / f"{shard.name}.{os.getpid()}.tmp"
    examples, skipped = 0, []
    try:
        # The reader of TFDS expects one record a group.
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for item in shard.items:
            example = make(item)
            if isinstance(example, Skipped):
                skipped.append(example)
            else:
                proto = serializer.get_tf_example(features.encode_example(example))
                # The order of a map's entries differs between processes otherwise.
                writer.write(proto.SerializeToString(deterministic=True))
                examples += 1
            each()
        writer.close()
        record = ShardRecord(
            key=shard.key,
            examples=examples,
            bytes=temporary.stat().st_size,
            sha256=file_sha256(temporary),
            skipped=tuple(skipped),
        )
        sync(temporary)
        os.replace(temporary, folder / shard.name)
        write_json(folder / f"{shard.name}.json", dataclasses.asdict(record))
    except (OSError, RuntimeError) as error:
        # array_record's C++ writer reports a full disk as RuntimeError.
        _, failed, words = str(error).partition("() failed: ")
        if not failed and not isinstance(error, OSError):
            raise
        kind = MachineError if is_machine_failure(error) else InputError
        why = words.split(";")[0] if failed else reason(error)
        raise kind(
            f"{folder}: cannot be written: {why}; finished parts stay there for the next run"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return record


def check_image(
    image: UInt8[np.ndarray, "S S C"], size: int, channels: int, what: str
) -> UInt8[np.ndarray, "S S C"]:
    """Returns the image; TFDS itself does not look at the shape of encoded images.

    Raises ValueError where it is not uint8 [size, size, channels].
    """
    if image.dtype != np.uint8 or image.shape != (size, size, channels):
        raise ValueError(
            f"{what}: {image.dtype}{list(image.shape)}, not uint8 [{size}, {size}, {channels}]"
        )
    return image
