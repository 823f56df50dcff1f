"""The training of e4e's encoders: rows that get changes of their own one after the other, a
discriminator of latents, and a penalty on the changes.

Two things differ from the official coaches. The discriminator sees latents with the mean latent
added, as the generator does; the coaches show it the encoder's output alone, and so does
`config.adversary.official_fakes`. And ReStyle's coach overwrites the sum of these losses where
there is an identity loss, so that its faces are trained without them; here they count.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import PRNGKeyArray

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.models.batch_norm import mean_of_devices
from interestyle_jax.models.progressive import PROGRESSIVE, silence_rows
from interestyle_jax.models.registry import describe
from interestyle_jax.parallel.sharding import gathered, shared_out
from interestyle_jax.training.encoder_task import FROZEN, EncoderState, EncoderTask
from interestyle_jax.training.latent_adversary import (
    Adversary,
    LatentAdversary,
    adversarial_loss,
    delta_norm,
    stage_at,
)
from interestyle_jax.training.task import Batch, PyTree

OPTIONS = ("learning_rate", "r1_gamma", "r1_every", "pool_size")


class AdversarialState(EncoderState):
    """An encoder's state, and that of its adversary."""

    adversary: Adversary


class AdversarialEncoderTask(EncoderTask):
    """`EncoderTask` with e4e's losses on latents, for an encoder that is trained progressively."""

    def __init__(self, config: ml_collections.ConfigDict):
        """See `EncoderTask`; `config.adversary` and `config.progressive` have the rest.

        Raises:
          InputError: bad config field, or an encoder that has no stages.
        """
        super().__init__(config)
        options, stages = config.adversary, config.progressive
        if not isinstance(self.encoder, PROGRESSIVE):
            names = ", ".join(cls.__name__ for cls in PROGRESSIVE)
            raise InputError(
                f"config.encoder.type: {type(self.encoder).__name__} has no stages, which "
                f"config.adversary needs; expected one of {names}"
            )
        for field in ("weight", "delta_weight", "r1_gamma", "pool_size"):
            if not options[field] >= 0:
                raise InputError(f"config.adversary.{field}: expected from 0, got {options[field]}")
        if options.r1_every < 1:
            raise InputError(f"config.adversary.r1_every: expected from 1, got {options.r1_every}")
        if stages.start < 0 or stages.every < 1:
            raise InputError(
                "config.progressive: expected start from 0 and every from 1, got "
                f"{stages.start} and {stages.every}"
            )
        self.adversary = LatentAdversary(
            self.generator.w_dim, **{name: options[name] for name in OPTIONS}
        )

    def init(self, key: PRNGKeyArray, initial: PyTree) -> AdversarialState:
        """See `Task.init`."""
        encoder_key, adversary_key = jax.random.split(key)
        state = super().init(encoder_key, initial)
        adversary = self.adversary.init(adversary_key)
        return AdversarialState(**vars(state), adversary=adversary)

    def _stage(self, step: jax.Array) -> jax.Array:
        stages = self.config.progressive
        return stage_at(step, stages.start, stages.every, self.generator.num_styles)

    def _inference_options(self, state: EncoderState) -> dict[str, Any]:
        # The last step's: a row that comes with the next one has not been trained.
        return {"stage": self._stage(jnp.maximum(state.step - 1, 0))}

    def _latent_loss(self, frozen: PyTree):
        options = self.config.adversary
        judge, stage = self.adversary.judge(frozen["adversary"]), frozen["options"]["stage"]

        norm_loss = super()._latent_loss(frozen)

        def loss(w_plus):
            more, norms = (0.0, {}) if norm_loss is None else norm_loss(w_plus)
            parts = {"adversarial": adversarial_loss(judge, w_plus, stage)}
            parts["delta_norm"] = delta_norm(w_plus, stage)
            total = options.weight * parts["adversarial"]
            return more + total + options.delta_weight * parts["delta_norm"], parts | norms

        return loss

    def train_step(  # type: ignore[override]
        self,
        key: PRNGKeyArray,
        state: AdversarialState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[AdversarialState, dict[str, jax.Array]]:
        """See `Task.train_step`: an update of the discriminator, then of the encoder against it."""
        encoder_key, adversary_key = jax.random.split(key)
        stage = self._stage(state.step)
        frozen = frozen | {"options": {"stage": stage}}
        adversary, batch_stats, judged = self._train_adversary(
            state, frozen, batch, adversary_key, freeze=FROZEN in phase
        )
        state = state.replace(adversary=adversary, batch_stats=batch_stats)
        frozen = frozen | {"adversary": adversary.params}
        after: Any
        after, metrics = super().train_step(encoder_key, state, frozen, batch, phase=phase)
        return after, metrics | judged | {"stage": stage.astype(jnp.float32)}

    def _train_adversary(self, state, frozen, batch, key, *, freeze):
        """The adversary after its step, and the encoder's statistics after the pass that it takes.

        The fakes are the latents of iteration 1, of a pass of E for them alone: of every image a
        random row of those that have changes of their own.
        """
        z_key, row_key, key = jax.random.split(key, 3)
        image, _ = self._prepare(batch)
        params, frozen = gathered((state.params, frozen))
        start = self._start(state.batch_stats, frozen, image.shape[0])
        encode = (self._encode_frozen if freeze else self._encode)(params, frozen["options"])
        x = image
        if self.feedback:
            x = jnp.concatenate([image, pool_to(start.image, image.shape[1:3])], axis=-1)
        fake, batch_stats = encode(state.batch_stats, x)
        if self.config.batch_norm == "local" and not freeze:
            batch_stats = mean_of_devices(batch_stats)
        if not self.config.adversary.official_fakes:
            fake = fake + start.w
        row = jax.random.randint(row_key, (len(fake),), 0, frozen["options"]["stage"] + 1)
        fake = jnp.take_along_axis(fake, row[:, None, None], axis=1)[:, 0]
        z = shared_out(jax.random.normal(z_key, (len(fake), self.generator.z_dim)))
        real = self.generator.apply(frozen["generator"], z, method="map")
        real, fake = jax.lax.stop_gradient((real, fake))
        adversary, metrics = self.adversary.train(key, state.adversary, real, fake, state.step)
        return adversary, batch_stats, metrics

    def export(  # type: ignore[override]
        self, state: AdversarialState, directory: Path, *, extra: dict[str, Any]
    ) -> None:
        """See `Task.export`. Rows that training has not come to yet are silent in what is written.

        Readers of the weights know no stages, and use every row.
        """
        stage = int(self._inference_options(state)["stage"])
        trees = {
            name: tree if tree is None else silence_rows(self.encoder, tree, stage)
            for name, tree in (("params", state.params), ("ema", state.ema))
        }
        super().export(state.replace(**trees), directory, extra=extra | {"stage": stage})

    def _more_to_export(  # type: ignore[override]
        self, state: AdversarialState
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The discriminator's variables and architecture, by part."""
        name = "latent_discriminator"
        variables = {name: {"params": state.adversary.params}}
        return variables, {name: describe(self.adversary.module)}
