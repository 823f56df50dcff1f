"""Training a generator to draw what a renderer draws, from the factors that the renderer used.

The images of the avatar world come with the numbers that decide them (`data.avatars.factors`). A
linear embedding turns these into w, so that each has a direction in W, and G(w) has to be the
image, by L1 and LPIPS: a supervised problem, which learns from every pixel where an adversary gives
one number an image. The mapping network learns beside it, from any number of random z: f(z) is to
be the embedding of the factors that belong to z, so that in the end G(f(z)) has the avatars' own
distribution.
"""

import math
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.data.fingerprint import fingerprint_arrays
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.models.products import matmul
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.factor_prior import factors_of_z, meaningful_dims
from interestyle_jax.training.gan_task import check_size, export_generator
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import load_weights, resolve_weights

SAMPLES_PER_ROW = 4
# Of the synthesis network's: `models.stylegan2.Mapping` learns at a hundredth of what it is given.
MAPPING_RATE = 300.0


class DistillationState(flax.struct.PyTreeNode):
    """Everything that the training carries; `params` and `ema` are {"generator", "embedding"}."""

    step: jax.Array
    params: PyTree
    ema: PyTree
    opt_state: PyTree
    noise: PyTree


class DistillationTask:
    """`Task` for a StyleGAN2 on images with known factors (fields `clean` and `factors`)."""

    batch_fields: tuple[str, ...] = ("clean", "factors")
    has_validation_loss = True

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the networks and reads LPIPS, `config.weights.lpips`.

        Raises:
          InputError: mirrored images, bad weights of the loss, or LPIPS weights that are missing.
        """
        self.config = config
        if config.data.flip:
            raise InputError("config.data.flip: expected False, factors are those of the image")
        for name, weight in config.loss.items():
            if not weight >= 0:
                raise InputError(f"config.loss.{name}: expected from 0, got {weight}")
        self.g = Generator(**config.generator.to_dict())
        self.factors = factors_of_style(config.style)
        if self.g.z_dim < (least := meaningful_dims(self.factors)):
            raise InputError(f"config.generator.z_dim: {self.g.z_dim}, expected from {least}")
        self.frozen: PyTree = {}
        self.initial: PyTree = {}
        self.weight_digests: dict[str, str] = {}
        self.lpips = None
        if config.loss.lpips:
            weights = load_weights(resolve_weights(config.weights.lpips))
            self.lpips, variables = weights.part("lpips")
            self.frozen = {"lpips": variables}
            self.weight_digests = {"lpips": fingerprint_arrays(variables)}
        rate = config.optimizer.learning_rate
        rates = {
            "synthesis": rate,
            "mapping": rate * MAPPING_RATE,
            "embedding": rate * config.embedding_rate,
        }
        self.optimizer = optax.multi_transform(
            {
                name: optax.adam(_warmed_up(r), b1=config.optimizer.b1, b2=config.optimizer.b2)
                for name, r in rates.items()
            },
            _groups,
        )

    def init(self, key: PRNGKeyArray, initial: PyTree) -> DistillationState:
        """See `Task.init`."""
        del initial
        g_key, embedding_key = jax.random.split(key)
        variables = self.g.init(g_key, jnp.zeros((1, self.g.z_dim)))
        shape = (len(self.factors.names), self.g.w_dim)
        kernel = jax.random.normal(embedding_key, shape) / math.sqrt(shape[0])
        params = {
            "generator": variables["params"],
            "embedding": {"kernel": kernel, "bias": jnp.zeros(self.g.w_dim)},
        }
        return DistillationState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=self.optimizer.init(params),
            noise=variables["noise"],
        )

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: all steps are alike."""
        del step
        return ()

    def _embed(self, params: PyTree, factors: jax.Array) -> jax.Array:
        return matmul(factors, params["embedding"]["kernel"]) + params["embedding"]["bias"]

    def _draw(self, params: PyTree, noise: PyTree, w: jax.Array) -> jax.Array:
        w_plus = jnp.broadcast_to(w[:, None], (len(w), self.g.num_styles, w.shape[-1]))
        variables = {"params": params["generator"], "noise": noise}
        return self.g.apply(variables, w_plus, "none", method="synthesize")

    def _map(self, params: PyTree, z: jax.Array) -> jax.Array:
        return self.g.apply({"params": params["generator"]}, z, method="map")

    def _perceptual(self, frozen: PyTree, images: jax.Array, real: jax.Array) -> jax.Array:
        """LPIPS [B] between images twice as large.

        AlexNet's first layer has a stride of 4 pixels: at this size it would see nothing finer.
        """
        if self.lpips is None:
            return jnp.zeros(len(images))

        def features(x):
            x = jax.image.resize(x, (len(x), 2 * x.shape[1], 2 * x.shape[2], 3), "bilinear")
            return self.lpips.apply(frozen["lpips"], x, method="features")

        target = jax.lax.stop_gradient(features(real))
        return self.lpips.apply(frozen["lpips"], features(images), target, method="compare")

    def _image_loss(self, params, noise, frozen, batch) -> dict[str, Float[jax.Array, " B"]]:
        real = normalize(batch)["clean"]
        check_size(real, self.g.resolution)
        images = self._draw(params, noise, self._embed(params, batch["factors"]))
        l1 = jnp.abs(images - real).mean((1, 2, 3))
        lpips = self._perceptual(frozen, images, real)
        weights = self.config.loss
        return {"loss": weights.l1 * l1 + weights.lpips * lpips, "l1": l1, "lpips": lpips}

    def _mapping_error(self, key: PRNGKeyArray, params: PyTree) -> jax.Array:
        """|f(z) - w|^2 over the variance of w, where w is what the factors of z give."""
        z = jax.random.normal(key, (self.config.mapping_batch_size, self.g.z_dim))
        target = jax.lax.stop_gradient(self._embed(params, factors_of_z(self.factors, z)))
        error = jnp.square(self._map(params, z) - target).mean()
        return error / jnp.var(target, axis=0).mean()

    def train_step(
        self,
        key: PRNGKeyArray,
        state: DistillationState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[DistillationState, dict[str, jax.Array]]:
        """See `Task.train_step`: one update of synthesis and embedding, and one of the mapping."""
        del phase
        networks = gathered(frozen)

        def objective(params):
            params = gathered(params)
            metrics = self._image_loss(params, state.noise, networks, batch)
            metrics = {name: value.mean() for name, value in metrics.items()}
            metrics["mapping_error"] = self._mapping_error(key, params)
            return metrics["loss"] + metrics["mapping_error"], metrics

        grads, metrics = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The mean over the last steps at first, then over the last `ema_steps`.
        decay = 1 - 1 / jnp.minimum(1 + 0.1 * state.step, self.config.ema_steps)
        ema = jax.tree.map(lambda a, b: b + decay * (a - b), state.ema, params)
        state = state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state)
        return state, metrics

    def validate_step(
        self, key: PRNGKeyArray, state: DistillationState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: of the moving average, on held-out images."""
        ema = gathered(state.ema)
        metrics = self._image_loss(ema, state.noise, gathered(frozen), batch)
        error = self._mapping_error(key, ema)
        return metrics | {"mapping_error": jnp.broadcast_to(error, metrics["loss"].shape)}

    def images(
        self, key: PRNGKeyArray, state: DistillationState, frozen: PyTree, batch: Batch
    ) -> Float[jax.Array, "B columns R R 3"]:
        """See `Task.images`: a held-out image, what its factors give, and samples beside them."""
        del frozen
        ema, real = gathered(state.ema), normalize(batch)["clean"]
        z = jax.random.normal(key, (SAMPLES_PER_ROW * len(real), self.g.z_dim))
        w = jnp.concatenate([self._embed(ema, batch["factors"]), self._map(ema, z)])
        drawn = self._draw(ema, state.noise, w)
        own, samples = drawn[: len(real), None], drawn[len(real) :]
        samples = samples.reshape(len(real), SAMPLES_PER_ROW, *real.shape[1:])
        return jnp.concatenate([real[:, None], own, samples], axis=1)

    def exported(self, state: DistillationState) -> DistillationState:
        """See `Task.exported`."""
        return state.replace(params=None, opt_state=None)

    def export(self, state: DistillationState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`: the moving average's generator, with w_avg over samples."""
        variables = {"params": state.ema["generator"], "noise": state.noise}
        export_generator(self.config, self.g, variables, directory, extra=extra)


def _groups(params: PyTree) -> PyTree:
    """Which learning rate a parameter has: "synthesis", "mapping" or "embedding"."""

    def group(path, _):
        names = [str(getattr(part, "key", part)) for part in path]
        if names[0] == "embedding":
            return "embedding"
        return "mapping" if names[1] == "mapping" else "synthesis"

    return jax.tree_util.tree_map_with_path(group, params)


def _warmed_up(rate: float) -> optax.Schedule:
    """`rate` from step 100 on, before it less; the moving average does what a decay would."""
    return optax.linear_schedule(0.0, rate, 100)
