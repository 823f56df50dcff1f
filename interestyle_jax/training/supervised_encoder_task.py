"""The training of an encoder where the latent of each image is known, as the avatars' are.

An error of w_plus learns from one pass of the encoder: no gradient goes through G or LPIPS, and
nothing of the obstacles is in its target. The first steps learn by it alone, all iterations at
once: half of a batch stands at the first, a quarter at the second, and so on. Beyond the paper.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.interest.uninterest_swap import swap_uninterest
from interestyle_jax.inversion.refinement import beside_result, refine
from interestyle_jax.parallel import processes
from interestyle_jax.training.encoder_gradients import LatentLoss, Position
from interestyle_jax.training.encoder_task import EncoderTask
from interestyle_jax.training.known_latents import (
    embedding_of,
    known_w,
    sample_factors,
    with_other_kinds,
    without_hidden,
)
from interestyle_jax.training.latent_metric import image_metric, latent_error, with_changes
from interestyle_jax.training.random_streams import stream
from interestyle_jax.training.task import Batch, PyTree

# The phase of a step that learns by known latents alone.
SUPERVISED = "supervised"
# Avatars that the metric is the mean over, and those whose parts are changed one by one.
SAMPLES, CHANGED = 1024, 256


class SupervisedEncoderTask(EncoderTask):
    """`EncoderTask` with known latents (field `factors`); `config.known_latents` has the options.

    Attributes:
      factors: of the style that the data set shows.
    """

    batch_fields: tuple[str, ...] = ("image", "interest_mask", "factors")

    def __init__(self, config: ml_collections.ConfigDict):
        """See `EncoderTask`.

        Raises:
          InputError: bad config field, mirrored images, or a generator that did not learn from
            factors.
        """
        super().__init__(config)
        self.factors = factors_of_style(config.known_latents.style)
        _, variables = self.networks.generator_part
        embedding = embedding_of(self.generator, variables["params"]["mapping"], self.factors)
        known = {"embedding": embedding, **self._metric(embedding)}
        # Hosts may round differently; what is not trained is the same everywhere.
        self.frozen = self.frozen | {"known": processes.tree_of_first(lambda: known)}

    def _metric(self, embedding: dict[str, Any]) -> dict[str, np.ndarray]:
        """What `latent_error` needs beside the latents."""
        w_0 = np.asarray(self.frozen["w_0"][0])
        shown = sample_factors(self.factors, SAMPLES) * without_hidden(self.factors)
        w = np.asarray(known_w(embedding, shown))
        synthesize, lpips = self._synthesize(self.frozen, None), self.networks.lpips
        weights = self.config.loss

        def vectors(images):
            found = [jnp.sqrt(weights.l2 / images[0].size) * images]
            if lpips is not None:
                parts = lpips.apply(self.frozen["lpips"], images, method="vectors")
                found += [jnp.sqrt(weights.lpips) * part for part in parts]
            return found

        # One metric for all seeds, as it belongs to the generator.
        key = stream(0, "latent_metric")
        metric = image_metric(key, lambda x: synthesize(x, 0), vectors, w, w_0)

        @jax.jit
        def loss(*two):
            rows = [jnp.broadcast_to(x[:, None], (len(x), *w_0.shape)) for x in two]
            parts = zip(*(vectors(synthesize(x, 0)) for x in rows), strict=True)
            return sum(jnp.square(a - b).reshape(len(a), -1).sum(1) for a, b in parts)

        changes = []
        for part, known in self.factors.parts.items():
            changed = with_other_kinds(self.factors, shown[:CHANGED], part)
            changes.append((np.asarray(known_w(embedding, jnp.asarray(changed))), len(known) - 1))
        metric = with_changes(metric, loss, w[:CHANGED], changes, w_0)
        return {"metric": metric, "variance": np.square(w - w_0[0]).mean()}

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: also `SUPERVISED` for the first `config.known_latents.until`."""
        first = step / self.config.num_steps < self.config.known_latents.until
        return (*((SUPERVISED,) if first else ()), *super().phase(step))

    def _options(self, phase: tuple[str, ...]) -> dict[str, Any]:
        return super()._options(phase) | {"supervised": SUPERVISED in phase}

    def gradients(
        self,
        key: PRNGKeyArray,
        params: PyTree,
        batch_stats: PyTree,
        frozen: PyTree,
        batch: Batch,
        *,
        freeze_batch_norm: bool = False,
        single_pass: bool = False,
        supervised: bool = False,
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        """See `EncoderTask.gradients`.

        Args:
          key, params, batch_stats, frozen, batch: as there; `factors` is one of the batch's fields.
          freeze_batch_norm: as there.
          single_pass: as there.
          supervised: the loss is `latent_error` alone, in one more iteration of every row.
        """
        shown = batch["factors"] * without_hidden(self.factors)
        frozen = frozen | {"w": known_w(frozen["known"]["embedding"], shown)}
        if not supervised:
            return super().gradients(
                key,
                params,
                batch_stats,
                frozen,
                batch,
                freeze_batch_norm=freeze_batch_norm,
                single_pass=single_pass,
            )
        image, mask = self._prepare(batch)
        image = swap_uninterest(key, image, mask, share=self.config.method.swap)
        start = self._start(batch_stats, frozen, len(image))
        if self.feedback and not single_pass:
            start = self._staggered(params, frozen, start, image)
        encode_with = self._encode_frozen if freeze_batch_norm else self._encode

        def objective(params):
            seen = beside_result(image, start.image)
            delta, new_stats = encode_with(params, {})(start.batch_stats, seen)
            return self._latent_error(frozen, start.w + delta), new_stats

        (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return grads, batch_stats, {"loss": loss, "latent_error": loss}

    def _staggered(
        self, params: PyTree, frozen: PyTree, start: Position, image: Float[jax.Array, "B S S 3"]
    ) -> Position:
        """Rows before different iterations: of 8, before the 4th, 1st, 2nd, 1st, 3rd, 1st, ..."""
        w, images = start.w, start.image
        for i in range(1, self.config.method.num_iterations):
            rows = slice(None, None, 2**i)
            if 2**i > len(image):
                break
            done = refine(
                self._encode_frozen(params, {}),
                self._synthesize(frozen, None),
                (image[rows],),
                w[rows],
                image_0=images[rows],
                carry=start.batch_stats,
            )
            w, images = w.at[rows].set(done.w_plus[-1]), images.at[rows].set(done.images[-1])
        return start._replace(w=w, image=images)

    def _latent_error(self, frozen: PyTree, w_plus: jax.Array) -> jax.Array:
        known = frozen["known"]
        return latent_error(w_plus, frozen["w"], known["metric"], known["variance"]).mean()

    def _latent_loss(self, frozen: PyTree) -> LatentLoss | None:
        weight, others = self.config.known_latents.weight, super()._latent_loss(frozen)
        if not weight:
            return others

        def loss(w_plus):
            more, parts = (0.0, {}) if others is None else others(w_plus)
            error = self._latent_error(frozen, w_plus)
            return more + weight * error, parts | {"latent_error": error}

        return loss
