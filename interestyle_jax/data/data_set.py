"""A TFDS data set on disk: opened, and read by index, with damage reported in one line.

Damaged files raise whatever the library that meets them first raises (JSON, protobuf, array_record,
PIL, TFDS): all of it is turned into InputError here.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from interestyle_jax.data.data_format import check_format
from interestyle_jax.data.images import decode_png
from interestyle_jax.data.locate import INFO
from interestyle_jax.errors import InputError, MachineError, file_error
from interestyle_jax.json_file import read_json

FEATURES = "features.json"
# TFDS imports the module of any class that features.json names.
CLASS, OWN_CLASSES = "pythonClassName", "tensorflow_datasets."
# Decoded images stay in memory when all of them take less than this.
CACHE_BYTES = 2 * 2**30


def open_data_set(directory: str | Path) -> tfds.core.DatasetBuilder:
    """The builder of a data set, its splits and features read.

    Raises:
      InputError: there is no data set, its files are damaged or of a format that is not read, or
        they name a class that is none of TFDS's own.
    """
    directory = Path(directory)
    if not (directory / INFO).is_file():
        raise InputError(f"{directory}: is not a data set (it has no {INFO})")
    try:
        _check_classes(directory / FEATURES)
        builder = tfds.builder_from_directory(str(directory))
        check_format(directory, builder.info)
        splits, features = dict(builder.info.splits), builder.info.features
        if not isinstance(features, tfds.features.FeaturesDict):
            raise InputError(f"{directory}: has {type(features).__name__}, expected named fields")
        for name, split in splits.items():
            if any(length < 0 for length in split.shard_lengths):
                raise InputError(
                    f"{directory}: split '{name}' has a shard of less than no examples"
                )
    except Exception as error:
        raise damage(directory, error) from error
    return builder


def present_fields(
    data_dir: str | Path, fields: Sequence[str], *, optional: Sequence[str] = ()
) -> tuple[str, ...]:
    """These fields, without those of `optional` that a data set does not have.

    Raises:
      InputError: as `open_data_set`, where there are optional ones.
    """
    if not optional:
        return tuple(fields)
    features = open_data_set(data_dir).info.features
    return tuple(field for field in fields if field not in optional or field in features)


class Examples:
    """Random access to the asked fields of one split, as {field: uint8 array or value}.

    Only these fields are decoded. `len(examples)` and `examples[i]` are all there is.
    """

    def __init__(
        self, data_dir: str | Path, split: str, fields: Sequence[str], *, cache: bool = True
    ):
        """Opens the data set.

        Raises:
          InputError: there is none, it is damaged, or it has no such split or field.
        """
        self._directory = directory = Path(data_dir)
        builder = open_data_set(directory)
        if split not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            raise InputError(f"{directory}: has no split '{split}' (it has {known})")
        features = builder.info.features
        self.fields = tuple(dict.fromkeys((*fields, "id")))
        for field in self.fields:
            _check_field(directory, features, field)
        images = [n for n, f in features.items() if isinstance(f, tfds.features.Image)]
        self._images = {
            n: _image_shape(directory, n, features[n]) for n in self.fields if n in images
        }
        if len({shape[:2] for shape in self._images.values()}) > 1:
            sizes = ", ".join(f"{name} {list(shape)}" for name, shape in self._images.items())
            raise InputError(f"{directory}: images of several sizes ({sizes}), expected one")
        try:
            # TFDS would decode every field; images come as bytes and are decoded here.
            self._source = builder.as_data_source(
                split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
            )
            count = len(self._source)
        except Exception as error:
            raise damage(directory, error) from error
        if not count:
            raise InputError(f"{directory}: split '{split}' has no examples")
        size = count * sum(math.prod(shape) for shape in self._images.values())
        self._cache: dict[int, dict] | None = {} if cache and size < CACHE_BYTES else None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        """Example `index`. Raises InputError where it is damaged."""
        if self._cache is not None and index in self._cache:
            return dict(self._cache[index])
        try:
            record = self._source[int(index)]
            example = {field: self._value(record, field) for field in self.fields}
        except Exception as error:
            raise damage(self._directory, error, what=f"example {index}") from error
        if self._cache is not None:
            self._cache[index] = dict(example)
        return example

    def _value(self, record: Any, field: str) -> Any:
        value = record
        for part in field.split("/"):
            value = value[part]
        if field in self._images:
            value = decode_png(value)
            if value.shape != self._images[field] or value.dtype != np.uint8:
                raise ValueError(f"{field} is {value.dtype}{list(value.shape)}")
        if field == "id":
            return np.int64(value)
        return value.decode("utf-8") if isinstance(value, bytes) else value

    def __repr__(self) -> str:
        return f"Examples({self._source!r}, {self.fields})"


def damage(directory: Path, error: Exception, *, what: str = "data set") -> Exception:
    """What to raise for a reader's error: InputError or MachineError, or what the system raised.

    Which of many types a damaged file raises depends on the library that meets it first.
    """
    of_system = isinstance(error, OSError) and error.errno is not None
    if of_system or isinstance(error, InputError | MachineError | MemoryError):
        return error
    return file_error(error, f"{directory}: {what} is damaged or unreadable")


def _check_field(directory: Path, features: tfds.features.FeaturesDict, field: str) -> None:
    name, slash, part = field.partition("/")
    if name not in features:
        known = ", ".join(sorted(features))
        hint = "; build it with interestyle data --masks" if "mask" in field else ""
        raise InputError(f"{directory}: has no field '{field}' (it has {known}){hint}")
    group = features[name]
    if slash and not (isinstance(group, tfds.features.FeaturesDict) and part in group):
        raise InputError(f"{directory}: has no field '{field}'")
    is_image = isinstance(group, tfds.features.Image)
    if not is_image and (name in ("image", "clean") or "mask" in name):
        raise InputError(f"{directory}: field '{field}' is {type(group).__name__}, expected Image")


def _image_shape(directory: Path, name: str, feature: tfds.features.Image) -> tuple[int, int, int]:
    """(H, W, C) of a field of images; C is 1 for masks, the fields with 'mask' in their name."""
    channels = 1 if "mask" in name else 3
    shape = tuple(feature.shape)
    whole = all(isinstance(side, int) and side > 0 for side in shape)
    if not whole or shape[2:] != (channels,) or feature.np_dtype != np.uint8:
        raise InputError(
            f"{directory}: field '{name}' is {np.dtype(feature.np_dtype)}{list(shape)}, expected "
            f"8-bit images of one size, [H, W, {channels}]"
        )
    return shape


def _check_classes(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing, the data set is incomplete")
    for name in _values(read_json(path), CLASS):
        if not str(name).startswith(OWN_CLASSES):
            raise InputError(f"{path}: names the class {name}, expected one of {OWN_CLASSES}*")


def _values(node: Any, key: str) -> Iterator[Any]:
    """What stands under `key` anywhere in a JSON value."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _values(value, key)
