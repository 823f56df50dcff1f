"""What a command declares of itself to be run as an image job."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.shard import Shard

# Shares of the images that may be skipped: of a folder, and where a face has to be found.
MAX_SKIPPED, MAX_WITHOUT_FACE = 0.01, 0.5


class RunOptions(TypedDict, total=False):
    """How a job is run; whatever runs one takes these.

    Attributes:
      shard: the part of this process; all without it.
      max_skipped: share of the images that may be skipped; None or without it: the job's own.
      workers: threads that load and save; None or without it: one a core, at most the job's own.
      command: the command line, for the report.
    """

    shard: Shard
    max_skipped: float | None
    workers: int | None
    command: Sequence[str]


class Item(NamedTuple):
    """One image of a source.

    Attributes:
      index: its place among all images, 0, 1, ...
      name: of its results, unique.
      source: what `ImageJob.load` reads, as a file's path.
    """

    index: int  # type: ignore[assignment]
    name: str
    source: Any


class Source(Protocol):
    """Images in a fixed order, cheap to list; what is in them is read by `ImageJob.load`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def state(self, item: Item) -> dict[str, Any]:
        """What changes when the image changes, as JSON; raises InputError where it is gone."""
        ...


@dataclasses.dataclass(frozen=True)
class Result:
    """What an image leaves behind.

    Attributes:
      files: {path below the output folder: content}.
      facts: what the report needs, as JSON; a line of `progress.jsonl` holds it.
      latents: float32 of the job's `latents_shape`, or None.
    """

    files: Mapping[str, bytes]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    latents: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Finished:
    """All images of a job when the last process has done its part.

    Attributes:
      records: {name, "file" and what else `Source.state` and `Result.facts` hold} of every image
        that was done, in the source's order; an iterable to be read again, not a list.
      skipped: {"name", "file", "skipped": reason} of the others.
      latents: the joined latents, or None where the job has none.
      num_new: images that this process did.
      seconds_per_image: of this process, after its first batch; None for one batch.
    """

    records: Iterable[dict[str, Any]]
    skipped: Sequence[dict[str, Any]]
    latents: LatentFile | None
    num_new: int
    seconds_per_image: float | None


def choose_batch_size(
    given: int | None, *, per_device: int, num_devices: int, num_images: int
) -> int:
    """Images a call of `ImageJob.compute`, a multiple of the devices.

    Args:
      given: what the user asks for, of all devices; None: `per_device` for each, fewer where there
        are no more images. Each device then computes as many rows as one alone would: XLA gives
        the same bits on any number of them.

    Raises:
      InputError: it is below 1.
    """
    if given is None:
        return min(per_device, num_images) * num_devices
    if given < 1:
        raise InputError(f"batch size: {given}, expected a whole number from 1")
    return -(-min(given, num_images) // num_devices) * num_devices


def stack_rows(
    rows: Sequence[np.ndarray | None],
    shape: Sequence[int],
    *,
    dtype: type[np.generic] = np.float32,
    fill: float = 0,
) -> np.ndarray:
    """A batch [B, *shape] of rows of this shape; `fill` in rows without an image."""
    batch = np.full((len(rows), *shape), fill, dtype)
    for own, row in zip(batch, rows, strict=True):
        if row is not None:
            own[:] = row
    return batch


class ImageJob:
    """A command on many images: `load` -> `compute` -> `save` of each, `finish` of all.

    `load` and `save` run in a pool of threads; `compute` only starts the work of a batch, which is
    fetched while the next one runs. A batch is always the same images in the same rows, whoever
    computes it: results do not depend on what was done before a stop, nor on the shards.

    Where the device has more to do once the host has seen its results, `compares` is set:
    `load` -> `compute` -> `inspect` -> `compare` -> `save`.

    Attributes:
      command: name of the command; an output folder belongs to one.
      options: all that results depend on, as JSON; an output folder belongs to one set.
      report_options: what the report alone depends on, as JSON; may change between calls.
      batch_size: images a call of `compute`.
      latents_shape: shape of `Result.latents`, or None.
      generator: fingerprint of the generator that they belong to, or None.
      own_files: paths below the output folder of what `finish` writes.
      report_file: the report's path there, one of them.
      compares: whether there are `inspect` and `compare`.
      max_skipped: share of the images that may be skipped, where nothing else is asked for.
      most_workers: threads at most, where nothing else is asked for.
    """

    command: str
    options: Mapping[str, Any]
    report_options: Mapping[str, Any] = MappingProxyType({})
    batch_size: int = 1
    latents_shape: tuple[int, ...] | None = None
    generator: str | None = None
    own_files: tuple[str, ...] = ("report.json",)
    report_file: str = "report.json"
    compares: bool = False
    max_skipped: float = MAX_SKIPPED
    most_workers: int = 16

    def outputs(self, name: str) -> tuple[str, ...]:
        """Paths below the output folder that the image of this name may leave: none."""
        del name
        return ()

    def load(self, item: Item) -> Any:
        """Reads an image; InputError skips it."""
        raise NotImplementedError

    def compute(self, rows: Sequence[Any | None]) -> Any:
        """Starts a batch: what `load` gave, None in rows without an image.

        Returns arrays with a leading axis of rows, on the device; or None without a device's work.
        """
        del rows

    def inspect(self, row: Any) -> Any:
        """What `compare` needs of an image: of its row of what `compute` returned, in the pool."""
        raise NotImplementedError

    def compare(self, rows: Sequence[Any]) -> dict[str, Any]:
        """As `compute`, of what `inspect` gave; joins what `compute` returned, a dict as well."""
        raise NotImplementedError

    def save(self, item: Item, loaded: Any, row: Any) -> Result:
        """What the image leaves; `row` is its row of what `compute` returned, as NumPy arrays."""
        raise NotImplementedError

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Writes what all images share, other than the report, which it returns."""
        raise NotImplementedError
