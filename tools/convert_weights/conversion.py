"""What a family of checkpoints is, and what converting one yields."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.weights import Weights

from .source_file import SourceFile
from .tensor_map import Mapped


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Converted parts and the architecture of each, as a weight directory keeps them.

    Attributes:
      parts: {part: converted arrays}.
      architectures: {part: architecture} of the parts that are networks.
      extra: JSON-able facts that the way back needs, for `metadata.json`'s "extra"; the `kept`
        integers of every part are added to it under "kept", {part: {key: integer}}. A mean latent
        that was computed is "w_avg": {"samples": number, "seed": seed}, noise buffers that were
        drawn "noise": {"seed": seed}, with "used": False where the network has no noise at all.
      ignored: source keys outside the parts that are left out on purpose (optimizer state).
      notes: what else the user has to know, a sentence each.
    """

    parts: dict[str, Mapped]
    architectures: dict[str, dict[str, Any]]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Family(ABC):
    """One kind of checkpoint.

    Attributes:
      name: what `--family` and `metadata.json` call it.
      licence: the licence of the weights, in words.
      files: where the official layout is several files, their names; `restore` then returns
        {file name: that file's content}, and a `.npy` is written as NumPy pickles a dict.
      options: what `convert_with` takes besides the files, each an option of the command.
    """

    name: str
    licence: str
    files: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @abstractmethod
    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """Whether files with this content are of this family; `source_file.keys` has their keys."""

    @abstractmethod
    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """Converts the files, or raises InputError listing every key that does not fit."""

    def convert_with(self, sources: Sequence[SourceFile], **options: Any) -> Conversion:
        """As `convert`, with what the files do not say: values of the family's `options`."""
        return self.convert(sources)

    def restore(self, weights: Weights) -> dict[str, Any]:
        """The official file's content: nested dicts of NumPy arrays and plain values.

        `torch_file.Device` is written as a torch.device, `{source_file.BARE: array}` as the array.

        Raises:
          InputError: the weights lack a part of the layout, or there is no way back.
        """
        raise InputError(f"{weights.directory}: family {self.name} has no PyTorch layout to write")


def shapes(architecture: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{path: shape} of every variable of a network; paths are "collection/module/name"."""
    tree = flatten_dict(registry.variable_shapes(architecture), sep="/")
    return {path: array.shape for path, array in tree.items()}
