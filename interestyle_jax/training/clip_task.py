"""Training a small CLIP on avatars, with captions made from what they were drawn with.

The loss is CLIP's, softmax of scaled cosines over the batch both ways, but for one thing: a caption
that names a few parts is true of several avatars of a batch, which is known here, so each of them
is a right answer. Source: CLIP (Radford et al. 2021) section 2.3.
"""

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Bool, Float, PRNGKeyArray

from interestyle_jax.data.avatars.captions import captions_of_style
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.models.clip import CLIP, unit
from interestyle_jax.models.products import matmul
from interestyle_jax.models.registry import describe, init
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.gan_task import check_size
from interestyle_jax.training.supervised import add_noise, averaged_step, cosine_schedule
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import save_weights

# CLIP's own bound of the scale of its cosines.
LARGEST_SCALE = np.log(100.0)
# Images beside each one in the grid: those that its caption fits best.
BEST = 3


class ClipState(flax.struct.PyTreeNode):
    """Everything that the training carries."""

    step: jax.Array
    params: PyTree
    ema: PyTree
    opt_state: PyTree


class ClipTask:
    """`Task` for a CLIP on avatars (fields `clean` and `factors`)."""

    batch_fields: tuple[str, ...] = ("clean", "factors")
    optional_fields: tuple[str, ...] = ()
    has_validation_loss = True

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the network from `config.clip`.

        Raises:
          InputError: mirrored images, whose tilt would be the other way, or a style without
            captions.
        """
        self.config = config
        if config.data.flip:
            raise InputError("config.data.flip: expected False, captions are those of the image")
        self.captions = captions_of_style(config.style)
        token_ids = self.captions.token_ids
        self.network = CLIP(
            **config.clip.to_dict(),
            context_length=self.captions.context_length,
            vocab_size=len(token_ids),
            token_ids=token_ids,
            quick_gelu=False,
            # Pixels from -1 to 1, which are what a generator draws.
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
        )
        self.frozen: PyTree = {}
        self.initial: PyTree = {}
        self.weight_digests: dict[str, str] = {}
        rate = config.optimizer.learning_rate
        schedule = cosine_schedule(rate, config.num_steps, warmup=200)
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(
                schedule,
                b2=0.98,
                weight_decay=config.optimizer.weight_decay,
                # Products alone, not norms, biases and the scale.
                mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
            ),
        )

    def init(self, key: PRNGKeyArray, initial: PyTree) -> ClipState:
        """See `Task.init`."""
        del initial
        params = init(key, self.network)["params"]
        return ClipState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=self.optimizer.init(params),
        )

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: all steps are alike."""
        del step
        return ()

    def _images(self, batch: Batch) -> jax.Array:
        images = normalize({"clean": batch["clean"]})["clean"]
        check_size(images, self.network.image_size, field="config.clip.image_size")
        return images

    def _logits(self, params: PyTree, images: jax.Array, tokens: jax.Array) -> jax.Array:
        """Scaled cosines [captions, images]."""

        def both(network, images, tokens):
            return network.image_features(images), network.text_features(tokens)

        variables = {"params": params}
        features = self.network.apply(variables, images, tokens, method=both)
        image_features, text_features = map(unit, features)
        return jnp.exp(params["logit_scale"]) * matmul(text_features, image_features.T)

    def _losses(
        self, key: PRNGKeyArray, params: PyTree, images: jax.Array, factors: jax.Array
    ) -> dict[str, Float[jax.Array, " B"]]:
        tokens, matches = self.captions.draw(key, factors)
        logits = self._logits(params, images, tokens)
        texts = _cross_entropy(logits, matches)
        loss = (texts + _cross_entropy(logits.T, matches.T)) / 2
        best = jnp.argmax(logits, axis=1)
        right = jnp.take_along_axis(matches, best[:, None], axis=1)[:, 0]
        return {"loss": loss, "accuracy": right.astype(jnp.float32)}

    def train_step(
        self,
        key: PRNGKeyArray,
        state: ClipState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[ClipState, dict[str, jax.Array]]:
        """See `Task.train_step`; images get some noise, as a generator's are not exact."""
        del frozen, phase
        images = self._images(batch)
        caption_key, noise_key = jax.random.split(key)
        images = add_noise(noise_key, images, most=self.config.noise)

        def losses(params):
            return self._losses(caption_key, gathered(params), images, batch["factors"])

        def limit(params):
            scale = jnp.clip(params["logit_scale"], 0.0, LARGEST_SCALE)
            return {**params, "logit_scale": scale}

        steps = self.config.ema_steps
        state, metrics = averaged_step(losses, state, self.optimizer, steps=steps, limit=limit)
        return state, {**metrics, "scale": jnp.exp(state.params["logit_scale"])}

    def validate_step(
        self, key: PRNGKeyArray, state: ClipState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: of the moving average, captions against the batch's images."""
        del frozen
        return self._losses(key, gathered(state.ema), self._images(batch), batch["factors"])

    def images(
        self, key: PRNGKeyArray, state: ClipState, frozen: PyTree, batch: Batch
    ) -> Float[jax.Array, "B columns R R 3"]:
        """See `Task.images`: an image, and those of the batch that its caption fits best."""
        del frozen
        images = self._images(batch)
        tokens, _ = self.captions.draw(key, batch["factors"])
        logits = self._logits(gathered(state.ema), images, tokens)
        best = jnp.argsort(-logits, axis=1)[:, :BEST]
        return jnp.concatenate([images[:, None], images[best]], axis=1)

    def exported(self, state: ClipState) -> ClipState:
        """See `Task.exported`."""
        return state.replace(params=None, opt_state=None)

    def export(self, state: ClipState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`: the moving average."""
        save_weights(
            directory,
            {"clip": {"params": state.ema}},
            family="clip",
            architectures={"clip": describe(self.network)},
            licence=self.config.licence,
            dtype=self.config.storage_dtype,
            force=True,
            extra=extra,
        )


def _cross_entropy(
    logits: Float[jax.Array, "B C"], matches: Bool[jax.Array, "B C"]
) -> Float[jax.Array, " B"]:
    """Of the softmax of each row against an even share of its matches, which it has one of."""
    share = matches / jnp.maximum(matches.sum(axis=1, keepdims=True), 1)
    return -jnp.sum(share * jax.nn.log_softmax(logits, axis=1), axis=1)
