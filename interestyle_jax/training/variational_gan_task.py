"""Adversarial training of a generator that also decodes a posterior of every image.

A plain GAN learns from one number an image. Here a second encoder gives every real image a
Gaussian of z, and G(f(z)) of a draw from it has to be that image (L1 and LPIPS) while the
Gaussians stay near the prior: dense gradients, and a W in which every real image has a place.
Half of what D judges are such decodings, the other half samples of the prior.
Source: VAE/GAN (Larsen et al. 2016, arXiv:1512.09300), with StyleGAN2's networks.
"""

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.fingerprint import fingerprint_arrays
from interestyle_jax.errors import InputError
from interestyle_jax.models.posterior import Posterior
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training import gan_losses
from interestyle_jax.training.gan_task import GanState, GanTask
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import load_weights, resolve_weights


class VariationalGanState(GanState):
    """`GanState` and the posterior's parameters and optimizer."""

    posterior: PyTree
    posterior_opt: PyTree


def kl_divergence(
    mean: Float[jax.Array, "B Z"], log_variance: Float[jax.Array, "B Z"]
) -> Float[jax.Array, " B"]:
    """KL(N(mean, variance) || N(0, 1)) in nats: [B, Z] twice -> [B]."""
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
    return 0.5 * terms.sum(axis=1)


class VariationalGanTask(GanTask):
    """`GanTask` with `config.reconstruction`: weights of L1, LPIPS, KL and the adversarial loss."""

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the networks and reads LPIPS, `config.weights.lpips`.

        Raises:
          InputError: a weight below 0, regularised path lengths, or LPIPS weights that are missing.
        """
        super().__init__(config)
        for name, weight in config.reconstruction.items():
            if not weight >= 0:
                raise InputError(f"config.reconstruction.{name}: expected from 0, got {weight}")
        if config.gan.path_length_weight:
            raise InputError("config.gan.path_length_weight: expected 0 with reconstruction")
        if config.batch_size % 2:
            raise InputError(f"config.batch_size: expected an even number, got {config.batch_size}")
        self.posterior = Posterior(
            self.g.resolution, self.g.z_dim, **config.discriminator.to_dict()
        )
        self.posterior_optimizer = optax.adam(
            config.optimizer.learning_rate, b1=0.5, b2=config.optimizer.b2, eps=1e-8
        )
        self.lpips = None
        if config.reconstruction.lpips and config.weights.lpips:
            weights = load_weights(resolve_weights(config.weights.lpips))
            self.lpips, variables = weights.part("lpips")
            self.frozen = {"lpips": variables}
            self.weight_digests = {"lpips": fingerprint_arrays(variables)}

    def init(self, key: PRNGKeyArray, initial: PyTree) -> VariationalGanState:
        """See `Task.init`."""
        key, posterior_key = jax.random.split(key)
        state = super().init(key, initial)
        size = self.g.resolution
        posterior = self.posterior.init(posterior_key, jnp.zeros((1, size, size, 3)))["params"]
        return VariationalGanState(
            **vars(state),
            posterior=posterior,
            posterior_opt=self.posterior_optimizer.init(posterior),
        )

    def _decode(self, params, noise, z, noise_key):
        w = self.g.apply({"params": params}, z, method="map")
        w_plus = jnp.broadcast_to(w[:, None], (len(w), self.g.num_styles, w.shape[-1]))
        variables = {"params": params, "noise": noise}
        return self.g.apply(variables, w_plus, noise_key, method="synthesize")

    def _perceptual(self, frozen: PyTree, real: jax.Array):
        """LPIPS to `real`, [B, R, R, 3] -> [B], on images twice as large.

        AlexNet's first layer has a stride of 4 pixels: at this size it would see nothing finer.
        """
        if self.lpips is None:
            return lambda images: jnp.zeros(len(images))

        def features(images):
            shape = (len(images), 2 * images.shape[1], 2 * images.shape[2], 3)
            images = jax.image.resize(images, shape, "bilinear")
            return self.lpips.apply(frozen["lpips"], images, method="features")

        target = jax.lax.stop_gradient(features(real))
        return lambda images: self.lpips.apply(
            frozen["lpips"], features(images), target, method="compare"
        )

    def train_step(  # type: ignore[override]
        self,
        key: PRNGKeyArray,
        state: VariationalGanState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[VariationalGanState, dict[str, jax.Array]]:
        """See `Task.train_step`: G and the posterior against D, and D on the same images.

        Both updates start from the same state, so every image is drawn once. `batch_size` real
        images are decoded; D judges half of these and half as many samples.
        """
        weights = self.config.reconstruction
        real = self._real(batch)
        size, half = len(real), len(real) // 2
        posterior_key, prior_key, noise_key = jax.random.split(key, 3)
        draws = jax.random.normal(posterior_key, (size, self.g.z_dim))
        prior = jax.random.normal(prior_key, (half, self.g.z_dim))
        perceptual = self._perceptual(gathered(frozen), real)

        def objective(trained):
            generator, posterior = gathered(trained)
            mean, log_variance = self.posterior.apply({"params": posterior}, real)
            z = jnp.concatenate([mean + jnp.exp(0.5 * log_variance) * draws, prior])
            images = self._decode(generator, state.noise, z, noise_key)
            decoded, judged = images[:size], images[size - half :]
            parts = {
                "l1": jnp.abs(decoded - real).mean(),
                "lpips": perceptual(decoded).mean(),
                "kl": kl_divergence(mean, log_variance).mean(),
                "adversarial": gan_losses.generator_loss(self._judge(state.discriminator, judged)),
            }
            return sum(weights[name] * part for name, part in parts.items()), (parts, judged)

        (loss, (parts, fake)), (g_grads, posterior_grads) = jax.value_and_grad(
            objective, has_aux=True
        )((state.generator, state.posterior))
        discriminator, discriminator_opt, judged = self._train_discriminator(
            state, real, fake, phase
        )
        generator, generator_opt = self._update(
            self.g_optimizer, g_grads, (state.generator, state.generator_opt)
        )
        posterior, posterior_opt = self._update(
            self.posterior_optimizer, posterior_grads, (state.posterior, state.posterior_opt)
        )
        state = state.replace(
            step=state.step + 1,
            generator=generator,
            discriminator=discriminator,
            generator_opt=generator_opt,
            discriminator_opt=discriminator_opt,
            ema=self._averaged(state, generator),
            r1=judged["r1"],
            posterior=posterior,
            posterior_opt=posterior_opt,
        )
        return state, {"loss": loss} | parts | judged

    def exported(self, state: PyTree) -> PyTree:
        """See `Task.exported`."""
        return super().exported(state).replace(posterior=None, posterior_opt=None)

    def images(  # type: ignore[override]
        self, key: PRNGKeyArray, state: VariationalGanState, frozen: PyTree, batch: Batch
    ) -> Float[jax.Array, "B columns R R 3"]:
        """See `Task.images`: a held-out image, its decoding, and samples beside them."""
        grid = super().images(key, state, frozen, batch)
        posterior = gathered(state.posterior)
        mean, _ = self.posterior.apply({"params": posterior}, grid[:, 0])
        decoded = self._decode(gathered(state.ema), state.noise, mean, "const")
        return jnp.concatenate([grid[:, :1], decoded[:, None], grid[:, 1:]], axis=1)
