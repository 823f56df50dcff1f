"""Training a network that reads avatars: their parts and colours, their position, their regions.

It learns from drawn avatars alone, with what they were drawn with, so it judges images that a
generator or an edit made without having seen one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.avatars.factors import Factors, factors_of_style
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.models.attributes import AttributeNetwork, Read
from interestyle_jax.models.registry import describe
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.gan_task import check_size
from interestyle_jax.training.optimizer import make_optimizer
from interestyle_jax.training.supervised import add_noise, averaged_step
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import save_weights

# Fields of an avatar, and what the network calls them.
REGIONS = {"interest": "interest_mask_full", "face": "face_mask_full"}
# A part's kinds and numbers decide together; a mask has thousands of pixels.
NUMBERS_WEIGHT, REGIONS_WEIGHT = 0.3, 1.0


class AttributeState(flax.struct.PyTreeNode):
    """Everything that the training carries."""

    step: jax.Array
    params: PyTree
    ema: PyTree
    opt_state: PyTree


def attribute_network(
    factors: Factors, *, resolution: int, widths: Sequence[int]
) -> AttributeNetwork:
    """The network for a style's factors."""
    attributes = [(part, tuple(known)) for part, known in factors.parts.items()]
    attributes += [(f"{name}_colour", tuple(base)) for name, base in factors.colours.items()]
    numbers = tuple(name for name in factors.names if "=" not in name)
    return AttributeNetwork(resolution, tuple(attributes), numbers, tuple(REGIONS), tuple(widths))


class AttributeTask:
    """`Task` for an `AttributeNetwork` on avatars."""

    batch_fields: tuple[str, ...] = ("clean", "factors", *REGIONS.values())
    optional_fields: tuple[str, ...] = ()
    has_validation_loss = True

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the network.

        Raises:
          InputError: mirrored images, or a bad `config.optimizer`.
        """
        self.config = config
        if config.data.flip:
            raise InputError("config.data.flip: expected False, factors are those of the image")
        self.factors = factors_of_style(config.style)
        self.network = attribute_network(
            self.factors, resolution=config.resolution, widths=config.widths
        )
        self.frozen: PyTree = {}
        self.initial: PyTree = {}
        self.weight_digests: dict[str, str] = {}
        self.optimizer = make_optimizer(config)

    def init(self, key: PRNGKeyArray, initial: PyTree) -> AttributeState:
        """See `Task.init`."""
        del initial
        size = self.config.resolution
        params = self.network.init(key, jnp.zeros((1, size, size, 3)))["params"]
        return AttributeState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=self.optimizer.init(params),
        )

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: all steps are alike."""
        del step
        return ()

    def _losses(
        self, params: PyTree, images: jax.Array, batch: Batch
    ) -> dict[str, Float[jax.Array, " B"]]:
        read: Read = self.network.apply({"params": params}, images)
        factors = batch["factors"]
        at, kinds, right = 0, 0.0, []
        wanted = factors[:, self._columns(kinds=True)]
        for _, known in self.network.attributes:
            logits = read.kinds[:, at : at + len(known)]
            target = wanted[:, at : at + len(known)]
            kinds += optax.softmax_cross_entropy(logits, target)
            right.append(logits.argmax(1) == target.argmax(1))
            at += len(known)
        numbers = jnp.square(read.numbers - factors[:, self._columns(kinds=False)]).mean(1)
        masks = jnp.concatenate([(batch[x] > 127) for x in REGIONS.values()], axis=-1)
        pixels = optax.sigmoid_binary_cross_entropy(read.regions, masks.astype(jnp.float32))
        regions = pixels.mean((1, 2, 3))
        agreeing = ((read.regions > 0) == masks).mean((1, 2, 3))
        return {
            "loss": kinds + NUMBERS_WEIGHT * numbers + REGIONS_WEIGHT * regions,
            "accuracy": jnp.stack(right).mean(0),
            "number_error": numbers,
            "pixel_accuracy": agreeing,
        }

    def _images(self, batch: Batch) -> jax.Array:
        images = normalize({"clean": batch["clean"]})["clean"]
        check_size(images, self.config.resolution)
        return images

    def _columns(self, *, kinds: bool) -> list[int]:
        return [i for i, name in enumerate(self.factors.names) if ("=" in name) == kinds]

    def train_step(
        self,
        key: PRNGKeyArray,
        state: AttributeState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[AttributeState, dict[str, jax.Array]]:
        """See `Task.train_step`; images get some noise, as a generator's are not exact."""
        del frozen, phase
        images = self._images(batch)
        images = add_noise(key, images, most=self.config.noise)

        def losses(params):
            return self._losses(gathered(params), images, batch)

        return averaged_step(losses, state, self.optimizer, steps=self.config.ema_steps)

    def validate_step(
        self, key: PRNGKeyArray, state: AttributeState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: of the moving average, on images without noise."""
        del key, frozen
        images = self._images(batch)
        return self._losses(gathered(state.ema), images, batch)

    def images(
        self, key: PRNGKeyArray, state: AttributeState, frozen: PyTree, batch: Batch
    ) -> Float[jax.Array, "B columns R R 3"]:
        """See `Task.images`: the image, its regions, and the regions that were read."""
        del key, frozen
        images = self._images(batch)
        read: Read = self.network.apply({"params": gathered(state.ema)}, images)
        masks = [(batch[x] > 127) for x in REGIONS.values()]
        masks += [(read.regions[..., i : i + 1] > 0) for i in range(len(REGIONS))]
        masks = [jnp.broadcast_to(2.0 * mask - 1, images.shape) for mask in masks]
        return jnp.stack([images, *masks], axis=1)

    def exported(self, state: AttributeState) -> AttributeState:
        """See `Task.exported`."""
        return state.replace(params=None, opt_state=None)

    def export(self, state: AttributeState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`: the moving average."""
        save_weights(
            directory,
            {"attributes": {"params": state.ema}},
            family="attributes",
            architectures={"attributes": describe(self.network)},
            licence=self.config.licence,
            dtype=self.config.storage_dtype,
            force=True,
            extra=extra,
        )
