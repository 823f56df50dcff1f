"""What of a job's output folder is done, and what is left to do."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.jobs import latents as latent_files
from interestyle_jax.jobs.job import ImageJob, Item, Source
from interestyle_jax.jobs.progress import Progress
from interestyle_jax.jobs.shard import Shard


class FolderState:
    """The images of a source, held against the progress and the files of an output folder."""

    def __init__(self, job: ImageJob, source: Source, progress: Progress):
        """Opens the latents that an earlier run has joined."""
        self.job, self.source, self.progress = job, source, progress
        self.out: Path = progress.out
        self.joined: latent_files.LatentFile | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reads what other processes have written and joined since."""
        self.progress.refresh()
        self.joined = _open_joined(self.out) if self.job.latents_shape else None

    def part(self, shard: Shard) -> list[int]:
        """Indices of the images of a shard: of its batches `index`, `index + count`, ..."""
        size = self.job.batch_size
        return [i for i in range(len(self.source)) if i // size % shard.count == shard.index]

    def waiting(self, shard: Shard) -> list[int]:
        """Indices of the images that are left to do, whose names are noted as planned."""
        found = ((i, self.find(self.source[i])) for i in self.part(shard))
        # What was skipped is tried again.
        left = [i for i, record in found if record is None or "skipped" in record]
        self.progress.plan((self.source[index].name for index in left), self.job.outputs)
        self.remove_unfinished(
            {name for i in left for name in self.job.outputs(self.source[i].name)}
        )
        return left

    def remove_unfinished(self, names: Collection[str]) -> None:
        """Deletes what a process was writing (".NAME.png.PROCESS") when it was killed."""
        for folder in {(self.out / name).parent for name in names}:
            for path in folder.glob(".*"):
                own = path.name[1:].rpartition(".")[0]
                if (folder / own).relative_to(self.out).as_posix() in names:
                    path.unlink(missing_ok=True)

    def find(self, item: Item) -> dict[str, Any] | None:
        """The line of an image that was skipped, or is as it says, with its files and latents."""
        record = self.progress.find(item.name)
        if record is None or "skipped" in record:
            return record
        return record if self._is_same(item, record) and self._has_latents(record) else None

    def _is_same(self, item: Item, record: Mapping[str, Any]) -> bool:
        try:
            if not self.source.state(item).items() <= record.items():
                return False
            sizes = record["outputs"].items()
            return all((self.out / name).stat().st_size == size for name, size in sizes)
        except (InputError, OSError):
            return False

    def _has_latents(self, record: Mapping[str, Any]) -> bool:
        if record["latents"] is None:
            return True
        file, row = record["latents"]
        rows = latent_files.rows_of(self.out, file, self.job.latents_shape)
        if rows is not None:
            return row < len(rows)
        return self.joined is not None and record["name"] in self.joined

    def batches(self, waiting: Sequence[int]) -> Iterator[list[Item | None]]:
        """These images in batches, each in its row; None in rows that have none to do."""
        size = self.job.batch_size
        for _, indices in itertools.groupby(waiting, lambda index: index // size):
            rows: list[Item | None] = [None] * size
            for index in indices:
                rows[index % size] = self.source[index]
            yield rows

    def read_latents(self, name: str) -> np.ndarray:
        """The latents of an image that is done, of the job's `latents_shape`."""
        file, row = self.progress.find(name)["latents"]
        rows = latent_files.rows_of(self.out, file, self.job.latents_shape)
        return self.joined[name] if rows is None else rows[row]


def check_results(job: ImageJob, source: Source, out: Path) -> None:
    """Checks the names of the files that a job will write to `out`.

    Raises:
      InputError: results that would overwrite each other, an input, or what all images share.
    """
    writers: dict[str, int] = {}
    inputs: set[tuple[int, int] | None] | None = None
    items = (source[index] for index in range(len(source)))
    for item, name in ((own, name) for own in items for name in job.outputs(own.name)):
        is_file = isinstance(item.source, Path)
        if name in job.own_files:
            raise InputError(f"{item.source}: its result would be {name}, which the command writes")
        writer = writers.setdefault(name, item.index)
        if writer != item.index:
            other = source[writer]
            result = f"its result {name}" if is_file else f"the result {name} of {item.name}"
            of = other.source.name if is_file else other.name
            raise InputError(f"{item.source}: {result} is also that of {of}")
        found = _identity(out / name) if is_file else None
        if found is not None:
            if inputs is None:
                inputs = {_identity(source[index].source) for index in range(len(source))}
            if found in inputs:
                raise InputError(f"{out}: {name} would overwrite its own input")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, by which two paths are the same file; None where there is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _open_joined(out: Path) -> latent_files.LatentFile | None:
    try:
        return latent_files.LatentFile(out)
    except InputError:
        return None
