"""Terms of the optimiser's loss, each an array [B]; image terms with masks of their own."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.distance import l2
from interestyle_jax.inversion.optimisation.recipes import IMAGE_TERMS, Terms
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop
from interestyle_jax.models.lpips import VGG_NAMES

# Smallest noise map that is regularised, and averaged to.
SMALLEST_MAP = 8


class Networks(NamedTuple):
    """Modules that are static in the program, by the names of their variables.

    Attributes:
      generator: G.
      alex, vgg: LPIPS networks, or None.
      encoder: for the in-domain term, or None.
      embedder: of identities, or None.
      crop: height and width whose proportions the target has, where it is no square.
    """

    generator: Any
    alex: Any = None
    vgg: Any = None
    encoder: Any = None
    embedder: Any = None
    crop: tuple[int, int] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Target:
    """What the drawn images shall be, and where.

    Several targets are added: a crossover has two, with masks that complete each other.

    Attributes:
      images: [B, H, W, 3] in [-1, 1], of the generator's size.
      masks: [B, H, W, 1] in [0, 1] by image term, or "all" for every one that has none of its own;
        multiplied into both images before the term. A term without a mask sees the whole image.
    """

    images: jax.Array
    masks: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises InputError unless images are of `shape` [B, H, W, 3] and masks go with it."""
        if self.images.shape != shape:
            raise InputError(f"target: shape {self.images.shape}, expected {shape}")
        for name, mask in self.masks.items():
            if name not in (*IMAGE_TERMS, "all"):
                raise InputError(f"mask of {name!r}: expected all, or of {', '.join(IMAGE_TERMS)}")
            if mask.shape != (*shape[:3], 1):
                raise InputError(f"mask: shape {mask.shape}, expected {(*shape[:3], 1)}")
            if not bool((mask > 0).any((1, 2, 3)).all()):
                raise InputError("mask: one is empty, expected a pixel above 0 in each")


def prepare(
    networks: Networks, variables: Mapping[str, Any], terms: Terms, target: Target
) -> dict[str, Any]:
    """What each image term compares with: {term: {"value": ..., "mask": ...}}, rows first. Pure."""
    prepared = {}
    for name in _image_terms(networks, terms):
        mask = target.masks.get(name, target.masks.get("all"))
        prepared[name] = {"value": _seen(networks, variables, terms, name, target.images, mask)}
        if mask is not None:
            prepared[name]["mask"] = mask
    return prepared


def image_losses(
    networks: Networks,
    variables: Mapping[str, Any],
    terms: Terms,
    prepared: Mapping[str, Any],
    images: Float[jax.Array, "B H W 3"],
) -> dict[str, Float[jax.Array, " B"]]:
    """The image terms, not weighted, of drawn images [B, H, W, 3] against `prepare`'s. Pure."""
    losses: dict[str, Any] = {}
    for name, target in prepared.items():
        seen = _seen(networks, variables, terms, name, images, target.get("mask"))
        value = target["value"]
        if name == "pixel":
            losses[name] = l2(seen, value)
        elif name == "lpips":
            lpips = getattr(networks, terms.lpips_network)
            own = variables[terms.lpips_network]
            losses[name] = lpips.apply(own, seen, value, method="compare")
        elif name == "features":
            losses[name] = sum(l2(a, b) for a, b in zip(seen, value, strict=True))
        else:
            losses[name] = 1 - jnp.sum(seen * value, axis=-1)
    return losses


def noise_regularisation(noise: Any) -> Float[jax.Array, " B"]:
    """StyleGAN2's: [B] of maps [B, H, W, 1] (any tree), which shall not repeat the image.

    Squared means of neighbours' products, of every map and of its averages down to 8 pixels.
    Source: appendix D of Karras et al. 2020.
    """
    total: Any = 0.0
    for map_ in jax.tree.leaves(noise):
        while True:
            for axis in (1, 2):
                product = jnp.mean(map_ * jnp.roll(map_, 1, axis), axis=(1, 2, 3))
                total += jnp.square(product)
            size = map_.shape[1]
            if size <= SMALLEST_MAP:
                break
            map_ = pool_to(map_, (size // 2, size // 2))
    return total


def normalise_noise(noise: Any) -> Any:
    """Maps [B, H, W, 1] (any tree) with mean 0 and mean square 1 each."""

    def normalise(map_):
        map_ = map_ - jnp.mean(map_, axis=(1, 2, 3), keepdims=True)
        return map_ * jax.lax.rsqrt(jnp.mean(jnp.square(map_), axis=(1, 2, 3), keepdims=True))

    return jax.tree.map(normalise, noise)


def encoded(
    networks: Networks, variables: Mapping[str, Any], images: Float[jax.Array, "B H W 3"]
) -> Float[jax.Array, "B L D"]:
    """The encoder's latent of drawn images [B, H, W, 3] after one iteration: [B, L, D]."""
    encoder = networks.encoder
    x = pool_to(images, networks.crop or (encoder.input_size,) * 2)
    if encoder.input_channels == 6:
        mean = jnp.broadcast_to(variables["mean_image"], x.shape)
        x = jnp.concatenate([x, mean], axis=-1)
    return variables["w_avg"] + encoder.apply(variables["encoder"], x, train=False)


def _image_terms(networks: Networks, terms: Terms) -> list[str]:
    names = [name for name in IMAGE_TERMS if getattr(terms, name)]
    return [name for name in names if name != "identity" or networks.embedder is not None]


def _seen(networks, variables, terms, name, images, mask) -> Any:
    """What a term compares of images."""
    if mask is not None:
        images = images * mask
    if name == "pixel":
        return images
    if name == "identity":
        embedder = networks.embedder
        if isinstance(embedder, FaceEmbedder):
            images = id_crop(images, size=embedder.input_size)
        return embedder.apply(variables["embedder"], images)
    images = _reduced(images, terms.perceptual_size)
    if name == "lpips":
        lpips = getattr(networks, terms.lpips_network)
        return lpips.apply(variables[terms.lpips_network], images, method="features")
    taps = tuple(sorted(VGG_NAMES.index(layer) for layer in terms.feature_layers))
    return networks.vgg.apply(variables["vgg"], images, taps=taps, method="features")


def _reduced(images: jax.Array, size: int | None) -> jax.Array:
    """Larger images averaged, so that their longer side is `size`."""
    factor = 1 if size is None else max(1, max(images.shape[1:3]) // size)
    return pool_to(images, (images.shape[1] // factor, images.shape[2] // factor))
