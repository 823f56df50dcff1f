"""What a data set is made of, and how far its building is."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interestyle_jax.data.shards import Shard, ShardRecord, Skipped, plan_shards


@dataclasses.dataclass(frozen=True)
class Source:
    """What a data set is made of.

    Attributes:
      name: TFDS name.
      features: TFDS features of an example, by field.
      splits: {split: [(item, identity), ...]}: `make` gets the items; by identities (JSON)
        a finished shard is compared with the plan.
      make: item -> example, or `Skipped`; runs in the worker processes.
      options: what else decides the content (JSON); goes into the manifest and `metadata.json`.
      size: side of the images in pixels.
      sources: the files read, as sorted (name, bytes), for the manifest; empty where drawn.
      skipped: images skipped before anything was read.
      notes: sentences for the report.
      description, homepage, licence: for TFDS.
    """

    name: str
    features: Mapping[str, Any]
    splits: Mapping[str, Sequence[tuple[Any, Any]]]
    make: Callable[[Any], dict | Skipped]
    options: Mapping[str, Any]
    size: int
    sources: Sequence[tuple[str, int]] = ()
    skipped: Sequence[Skipped] = ()
    notes: Sequence[str] = ()
    description: str = ""
    homepage: str = ""
    licence: str = ""


class Build:
    """A source, its shards, and the records of those that are finished, by name."""

    def __init__(self, source: Source):
        self.source = source
        self.shards = plan_shards(source.splits, size=source.size, options=source.options)
        self.records: dict[str, ShardRecord] = {}

    @property
    def total(self) -> int:
        """How many images there are, those skipped included."""
        return len(self.source.skipped) + sum(len(shard.items) for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether every shard is finished."""
        return len(self.records) == len(self.shards)

    def skipped(self) -> list[Skipped]:
        """What was skipped before and while reading, in the order of the plan."""
        found = [self.records[s.name].skipped for s in self.shards if s.name in self.records]
        return [*self.source.skipped, *(entry for entries in found for entry in entries)]

    def written(self) -> dict[str, int]:
        """{split: examples in its finished shards}."""
        written = dict.fromkeys(self.source.splits, 0)
        for shard in self.shards:
            if shard.name in self.records:
                written[shard.split] += self.records[shard.name].examples
        return written

    def files(self) -> dict[str, dict[str, Shard]]:
        """{split: {file that TFDS expects: shard}} when complete, without empty shards."""
        files: dict[str, dict[str, Shard]] = {}
        for split in self.source.splits:
            own = [s for s in self.shards if s.split == split and self.records[s.name].examples]
            files[split] = {
                f"{self.source.name}-{split}.array_record-{number:05d}-of-{len(own):05d}": shard
                for number, shard in enumerate(own)
            }
        return files
