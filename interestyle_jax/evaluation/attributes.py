"""What avatars show, read from their images: attributes with names, numbers, and regions."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.weights import load_weights, resolve_weights


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What B images show.

    Attributes:
      chances: {attribute: {kind: [B]}}, each attribute's sum to 1.
      numbers: {name: [B]}, of about unit spread.
      regions: {name: [B, H, W]}, chances.
    """

    chances: dict[str, dict[str, Float[np.ndarray, " B"]]]
    numbers: dict[str, Float[np.ndarray, " B"]]
    regions: dict[str, Float[np.ndarray, "B H W"]]

    def labels(self, attribute: str) -> list[str]:
        """The likeliest kind of each image.

        Raises:
          InputError: the attribute is not known.
        """
        if attribute not in self.chances:
            raise InputError(
                f"attribute: expected one of {', '.join(self.chances)}, got {attribute!r}"
            )
        kinds = list(self.chances[attribute])
        best = np.argmax(np.stack([self.chances[attribute][kind] for kind in kinds]), axis=0)
        return [kinds[i] for i in best]

    def scores(self, name: str) -> Float[np.ndarray, " B"]:
        """A score that grows with what the name says.

        Args:
          name: "beard=chin" (chance of a kind), "beard" (chance that a part is there, where it may
            be left out), or a number such as "tilt".

        Raises:
          InputError: an unknown name; the message lists the known ones.
        """
        attribute, equals, kind = name.partition("=")
        chances = self.chances.get(attribute, {})
        if equals and kind in chances:
            return chances[kind]
        if not equals and "none" in chances:
            return 1 - chances["none"]
        if name in self.numbers:
            return self.numbers[name]
        known = [f"{part}={kind}" for part, kinds in self.chances.items() for kind in kinds]
        optional = [part for part, kinds in self.chances.items() if "none" in kinds]
        names = ", ".join([*optional, *known, *self.numbers])
        raise InputError(f"attribute: {name!r} is not known, expected one of {names}")


class AttributeReader:
    """Reads attributes by a network that was trained on drawn avatars.

    Attributes:
      resolution: height and width of the images that it reads.
    """

    def __init__(self, weights: str | os.PathLike = "avatar_attributes"):
        """Reads a weight directory, or one that ships by its name.

        Raises:
          InputError: no such weights, or none of this kind.
        """
        network, variables = load_weights(resolve_weights(weights)).part("attributes")
        self.resolution = network.resolution
        self._network, self._variables = network, jax.device_put(variables)
        self._apply = jax.jit(network.apply)

    def __call__(self, images: Float[np.ndarray, "B R R 3"]) -> Attributes:
        """Reads images [B, resolution, resolution, 3] in [-1, 1].

        Raises:
          InputError: images of another size.
        """
        size = self.resolution
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise InputError(f"images: expected [B, {size}, {size}, 3], got {images.shape}")
        read = jax.device_get(self._apply(self._variables, jnp.asarray(images, jnp.float32)))
        chances, at = {}, 0
        for name, kinds in self._network.attributes:
            logits = read.kinds[:, at : at + len(kinds)].astype(np.float64)
            likely = np.exp(logits - logits.max(1, keepdims=True))
            likely /= likely.sum(1, keepdims=True)
            chances[name] = dict(zip(kinds, likely.T, strict=True))
            at += len(kinds)
        numbers = dict(zip(self._network.numbers, read.numbers.T, strict=True))
        shares = 1 / (1 + np.exp(-np.moveaxis(read.regions, -1, 0).astype(np.float64)))
        return Attributes(chances, numbers, dict(zip(self._network.regions, shares, strict=True)))

    def read_all(self, images: Float[np.ndarray, "N R R 3"], *, batch_size: int) -> Attributes:
        """Reads any number of images [N, R, R, 3], in batches of one size.

        Raises:
          InputError: as `__call__`.
        """
        parts: list[Attributes] = []
        for start in range(0, max(1, len(images)), batch_size):
            part = images[start : start + batch_size]
            missing = batch_size - len(part)
            # Beyond the end rows of zeros, which are cut off below.
            parts.append(self(np.pad(part, [(0, missing), *[(0, 0)] * 3])))

        def joined(*values: np.ndarray) -> np.ndarray:
            return np.concatenate(values)[: len(images)]

        fields = [(part.chances, part.numbers, part.regions) for part in parts]
        return Attributes(*jax.tree.map(joined, *fields))
