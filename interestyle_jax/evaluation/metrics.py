"""What is measured of an inversion, per image: pure functions for use inside `jit`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jaxtyping import Float

from interestyle_jax.inversion.distance import Distance, l2
from interestyle_jax.weights import load_weights, resolve_weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lpips:
    """LPIPS as a `Distance`; a pytree, so that its weights are arguments of what is jitted.

    Attributes:
      module: the network.
      variables: its weights.
    """

    module: Any = dataclasses.field(metadata={"static": True})
    variables: Any

    def __call__(
        self, a: Float[jax.Array, "B H W 3"], b: Float[jax.Array, "B H W 3"]
    ) -> Float[jax.Array, " B"]:
        """Distances [B] of images in [-1, 1]."""
        return self.module.apply(self.variables, a, b)


def load_distance(lpips: str | Path, *, place: Sharding | None = None) -> Lpips:
    """LPIPS from a weight directory, on the devices of `place` (None: JAX's default device).

    Raises:
      InputError: no such weights, or no LPIPS network in them.
    """
    module, variables = load_weights(resolve_weights(lpips)).part("lpips")
    return Lpips(module, jax.device_put(variables, place))


def region_distances(
    a: Float[jax.Array, "B H W 3"],
    b: Float[jax.Array, "B H W 3"],
    mask: Float[jax.Array, "B H W 1"] | None,
    *,
    lpips: Distance,
) -> dict[str, Float[jax.Array, " B"]]:
    """L2 and LPIPS of two batches on a region, the paper's way (Table 1).

    Both images are multiplied by the mask first, and the mean runs over *all* pixels: outside
    the region both are mid-grey (0), and a small region has a small distance.

    Args:
      a, b: [B, H, W, 3] in [-1, 1].
      mask: [B, H, W, 1] in [0, 1], or None for the whole image.
      lpips: (a, b) -> [B].

    Returns:
      {"l2": [B], "lpips": [B]}.
    """
    if mask is not None:
        a, b = a * mask, b * mask
    return {"l2": l2(a, b), "lpips": lpips(a, b)}


def latent_variance(w_plus: Float[jax.Array, "*B L D"]) -> Float[jax.Array, "*B"]:
    """Variance of a latent over its layers, averaged over its dimensions (Fig. 3, 10).

    Zero where all rows agree, as in W: the paper's measure of the distance from W (§2).

    Args:
      w_plus: [..., L, D].

    Returns:
      [...], the population variance.
    """
    return jnp.mean(jnp.var(w_plus, axis=-2), axis=-1)
