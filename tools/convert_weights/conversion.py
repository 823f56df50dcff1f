"""What a family of checkpoints is, and what converting one yields."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from interestyle_jax.models import registry
from tools.convert_weights.source_file import SourceFile
from tools.convert_weights.tensor_map import Mapped


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Converted parts and the architecture of each, as a weight directory keeps them."""

    parts: dict[str, Mapped]
    architectures: dict[str, dict[str, Any]]


class Family(ABC):
    """One kind of checkpoint.

    Attributes:
      name: what `--family` and `metadata.json` call it.
      licence: the licence of the weights, in words.
    """

    name: str
    licence: str

    @abstractmethod
    def matches(self, keys: frozenset[str]) -> bool:
        """Whether files with these keys (nested ones joined by "/") are of this family."""

    @abstractmethod
    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """Converts the files, or raises InputError listing every key that does not fit."""


def shapes(architecture: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{path: shape} of every variable of a network; paths are "collection/module/name"."""
    tree = flatten_dict(registry.variable_shapes(architecture), sep="/")
    return {path: array.shape for path, array in tree.items()}
