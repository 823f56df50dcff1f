"""Adversarial training of the generator, as a task of the shared train loop.

Source: StyleGAN2 (Karras et al. 2020): non-saturating loss, lazy R1, lazy path length
regularisation, style mixing, exponential moving average of G.
"""

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.stylegan2 import FORMS, Generator
from interestyle_jax.parallel.sharding import gathered, shared_out
from interestyle_jax.training import gan_losses
from interestyle_jax.training.discriminator_update import (
    R1,
    lazy_adam,
    train_discriminator,
    update,
)
from interestyle_jax.training.random_streams import stream
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import save_weights

W_AVG_SAMPLES, W_AVG_SEED = 10_000, 0
SAMPLES_PER_ROW = 5


class GanState(flax.struct.PyTreeNode):
    """Everything that a generator's training carries from step to step."""

    step: jax.Array
    generator: PyTree
    discriminator: PyTree
    noise: PyTree
    generator_opt: PyTree
    discriminator_opt: PyTree
    ema: PyTree
    r1: jax.Array
    mean_path_length: jax.Array


FIELDS = ("clean", "image")


class GanTask:
    """`Task` for a StyleGAN2 on the images of `config.gan.field`."""

    batch_fields: tuple[str, ...] = ("clean",)
    optional_fields: tuple[str, ...] = ()
    has_validation_loss = False

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the networks from `config.generator` and `config.discriminator`.

        Raises:
          InputError: bad field of `config.gan`.
        """
        self.config = config
        self.frozen = {}
        self.initial = {}
        self.weight_digests = {}
        self.g = build_generator(config)
        self.d = Discriminator(resolution=self.g.resolution, **config.discriminator.to_dict())
        gan = config.gan
        if gan.field not in FIELDS:
            raise InputError(
                f"config.gan.field: expected one of {', '.join(FIELDS)}, got {gan.field!r}"
            )
        self.batch_fields = (gan.field,)
        for weight, every in (
            ("r1_gamma", "r1_every"),
            ("path_length_weight", "path_length_every"),
        ):
            if not gan[weight] >= 0:
                raise InputError(f"config.gan.{weight}: expected from 0, got {gan[weight]}")
            if gan[weight] and gan[every] < 1:
                raise InputError(f"config.gan.{every}: expected from 1, got {gan[every]}")
        self.g_optimizer = lazy_adam(
            config.optimizer, gan.path_length_every if gan.path_length_weight else 0
        )
        self.d_optimizer = lazy_adam(config.optimizer, gan.r1_every if gan.r1_gamma else 0)

    def init(self, key: PRNGKeyArray, initial: PyTree) -> GanState:
        """See `Task.init`."""
        del initial
        g_key, d_key = jax.random.split(key)
        g_variables = self.g.init(g_key, jnp.zeros((1, self.g.z_dim)))
        size = self.g.resolution
        discriminator = self.d.init(d_key, jnp.zeros((1, size, size, 3)))["params"]
        generator = g_variables["params"]
        return GanState(
            step=jnp.zeros((), jnp.int32),
            generator=generator,
            discriminator=discriminator,
            noise=g_variables["noise"],
            generator_opt=self.g_optimizer.init(generator),
            discriminator_opt=self.d_optimizer.init(discriminator),
            ema=jax.tree.map(jnp.copy, generator),
            r1=jnp.zeros(()),
            mean_path_length=jnp.zeros(()),
        )

    def _w_plus(self, key: jax.Array, params: PyTree, batch_size: int) -> jax.Array:
        """Latents [B, L, D] of random z, a share of them mixed of two at a random row."""
        z_key, mix_key, row_key = jax.random.split(key, 3)
        rows = self.g.num_styles
        z = jax.random.normal(z_key, (2 * batch_size, self.g.z_dim))
        first, second = jnp.split(self.g.apply({"params": params}, z, method="map"), 2)
        mixed = jax.random.uniform(mix_key, (batch_size,)) < self.config.gan.style_mixing
        crossover = jax.random.randint(row_key, (batch_size,), 1, rows)
        crossover = jnp.where(mixed, crossover, rows)
        use_first = jnp.arange(rows)[None, :] < crossover[:, None]
        return shared_out(jnp.where(use_first[..., None], first[:, None], second[:, None]))

    def _draw(self, key, params, noise, batch_size):
        params = gathered(params)
        w_key, noise_key = jax.random.split(key)
        w_plus = self._w_plus(w_key, params, batch_size)
        variables = {"params": params, "noise": noise}
        return self.g.apply(variables, w_plus, noise_key, method="synthesize")

    def _real(self, batch: Batch) -> jax.Array:
        real = normalize(batch)[self.config.gan.field]
        check_size(real, self.g.resolution)
        return real

    def _judge(self, params, images):
        return self.d.apply({"params": gathered(params)}, images)

    def _ema_decay(self, step: jax.Array) -> jax.Array:
        gan, batch_size = self.config.gan, self.config.batch_size
        seen = step.astype(jnp.float32) * batch_size
        half_life = jnp.minimum(gan.ema_half_life, seen * gan.ema_rampup)
        return 0.5 ** (batch_size / jnp.maximum(half_life, 1e-8))

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: the lazy regularisers that run at this step."""
        gan = self.config.gan
        due = []
        if gan.r1_gamma and step % gan.r1_every == 0:
            due.append(R1)
        if gan.path_length_weight and step % gan.path_length_every == 0:
            due.append("path_length")
        return tuple(due)

    def train_step(
        self,
        key: PRNGKeyArray,
        state: GanState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[GanState, dict[str, jax.Array]]:
        """See `Task.train_step`: one update of D, then one of G against it.

        A regulariser that is due has an update of its own after its network's, with the same
        optimizer state, on the parameters that the first one gave.
        """
        del frozen
        gan = self.config.gan
        real = self._real(batch)
        size = real.shape[0]
        d_key, g_key, path_key = jax.random.split(key, 3)

        fake = self._draw(d_key, state.generator, state.noise, size)

        discriminator, discriminator_opt, judged = self._train_discriminator(
            state, real, fake, phase
        )

        def g_objective(params):
            images = self._draw(g_key, params, state.noise, size)
            return gan_losses.generator_loss(self._judge(discriminator, images))

        g_loss, g_grads = jax.value_and_grad(g_objective)(state.generator)
        trained = update(self.g_optimizer, g_grads, (state.generator, state.generator_opt))
        mean_path_length = state.mean_path_length
        if "path_length" in phase:
            path_grads, mean_path_length = self._path_length_gradient(
                path_key, state, trained[0], max(1, size // 2)
            )
            factor = gan.path_length_weight * gan.path_length_every
            trained = update(self.g_optimizer, path_grads, trained, factor=factor)
        generator, generator_opt = trained
        metrics = {"loss": g_loss} | judged | {"path_length": mean_path_length}
        state = GanState(
            step=state.step + 1,
            generator=generator,
            discriminator=discriminator,
            noise=state.noise,
            generator_opt=generator_opt,
            discriminator_opt=discriminator_opt,
            ema=self._averaged(state, generator),
            r1=judged["r1"],
            mean_path_length=mean_path_length,
        )
        return state, metrics

    def _train_discriminator(self, state, real, fake, phase):
        """D's parameters and optimizer state after its update, and R1's where due; its metrics."""
        gan = self.config.gan
        return train_discriminator(
            self._judge,
            self.d_optimizer,
            (state.discriminator, state.discriminator_opt),
            real,
            fake,
            r1_factor=0.5 * gan.r1_gamma * gan.r1_every if R1 in phase else None,
            r1=state.r1,
        )

    def _averaged(self, state, generator):
        """The moving average of G's parameters after a step that ends with `generator`."""
        decay = self._ema_decay(state.step)
        return jax.tree.map(lambda a, b: b + decay * (a - b), state.ema, generator)

    def _path_length_gradient(self, key, state, params, size):
        """Of the penalty on `size` latents at `params`, and the mean path length with theirs."""
        w_key, noise_key, y_key = jax.random.split(key, 3)

        def objective(params):
            params = gathered(params)
            w_plus = self._w_plus(w_key, params, size)
            variables = {"params": params, "noise": state.noise}

            def synthesize(w_plus):
                return self.g.apply(variables, w_plus, noise_key, method="synthesize")

            lengths = gan_losses.path_lengths(y_key, synthesize, w_plus)
            mean = state.mean_path_length + 0.01 * (lengths.mean() - state.mean_path_length)
            return jnp.square(lengths - mean).mean(), jax.lax.stop_gradient(mean)

        (_, mean), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return grads, mean

    def validate_step(
        self, key: PRNGKeyArray, state: GanState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: D's logits on held-out images and on the EMA's samples."""
        del frozen
        real = self._real(batch)
        fake = self._draw(key, state.ema, state.noise, real.shape[0])
        return {
            "held_out_logit": self._judge(state.discriminator, real),
            "sample_logit": self._judge(state.discriminator, fake),
        }

    def images(self, key: PRNGKeyArray, state: GanState, frozen: PyTree, batch: Batch) -> jax.Array:
        """See `Task.images`: a held-out image, and five of the EMA's samples beside it."""
        del frozen
        real = self._real(batch)
        samples = self._draw(key, state.ema, state.noise, SAMPLES_PER_ROW * len(real))
        samples = samples.reshape(len(real), SAMPLES_PER_ROW, *real.shape[1:])
        return jnp.concatenate([real[:, None], samples], axis=1)

    def exported(self, state: GanState) -> GanState:
        """See `Task.exported`."""
        return state.replace(discriminator=None, generator_opt=None, discriminator_opt=None)

    def export(self, state: GanState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`: the EMA generator, with w_avg over 10,000 samples."""
        variables = {"params": state.ema, "noise": state.noise}
        export_generator(self.config, self.g, variables, directory, extra=extra)


def build_generator(config: ml_collections.ConfigDict) -> Generator:
    """The generator of `config.generator`, in the form that suits the backend unless it names one.

    Raises:
      InputError: unknown field or form.
    """
    fields = config.generator.to_dict()
    form = fields.pop("form", "")
    if form not in ("", *FORMS):
        raise InputError(f"config.generator.form: {form!r}, expected one of {', '.join(FORMS)}")
    try:
        return registry.build({"type": "Generator", **fields}, **({"form": form} if form else {}))
    except ValueError as error:
        raise InputError(f"config.generator: {error}") from error


def check_size(
    real: Float[jax.Array, "B H W 3"],
    resolution: int,
    *,
    field: str = "config.generator.resolution",
) -> None:
    """Raises InputError where images [B, H, W, 3] are of another size than the network's.

    `field` is where the config has it.
    """
    if real.shape[1:3] != (resolution, resolution):
        raise InputError(
            f"config.data.dir: its images are {real.shape[1]} x {real.shape[2]}, "
            f"{field} is {resolution}"
        )


def export_generator(
    config: ml_collections.ConfigDict,
    generator: Generator,
    variables: PyTree,
    directory: Path,
    *,
    extra: dict[str, Any],
) -> None:
    """Writes a weight directory of a generator, with w_avg over 10,000 samples.

    Args:
      config: the run's; its licence and storage type.
      generator: the network.
      variables: {"params", "noise"}.
      directory: where; replaced if it is there.
      extra: facts for the metadata.
    """
    key = stream(W_AVG_SEED, "mean_latent")
    z = jax.random.normal(key, (W_AVG_SAMPLES, generator.z_dim))
    w_avg = generator.apply({"params": variables["params"]}, z, method="map").mean(axis=0)
    save_weights(
        directory,
        {"generator": variables, "w_avg": w_avg},
        family="stylegan2",
        architectures={"generator": registry.describe(generator)},
        licence=config.licence,
        dtype=config.storage_dtype,
        force=True,
        extra={"w_avg": {"samples": W_AVG_SAMPLES, "seed": W_AVG_SEED}, **extra},
    )
