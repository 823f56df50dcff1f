"""Training a generator to draw what a renderer draws, from the factors that the renderer used.

The images of the avatar world come with the numbers that decide them (`data.avatars.factors`). An
embedding turns these into w, and G(w) has to be the image, by L1 and LPIPS: a supervised problem,
which learns from every pixel where an adversary gives one number an image. The layers of the
embedding are the last of the mapping network; those before them, from z to factors, are computed
(`factor_mapping`), so in the end G(f(z)) has the avatars' own distribution.
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
from interestyle_jax.models.factor_embedding import FactorEmbedding
from interestyle_jax.models.products import matmul
from interestyle_jax.models.stylegan2 import MAPPING_RATE
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.factor_mapping import LAYERS, factor_layers
from interestyle_jax.training.gan_task import build_generator, check_size, export_generator
from interestyle_jax.training.muon import muon
from interestyle_jax.training.supervised import averaged_step, cosine_schedule
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import load_weights, resolve_weights

SAMPLES_PER_ROW = 4


class DistillationState(flax.struct.PyTreeNode):
    """Everything that the training carries; `params` and `ema` are {"synthesis", "embedding"}."""

    step: jax.Array
    params: PyTree
    ema: PyTree
    opt_state: PyTree
    noise: PyTree


class DistillationTask:
    """`Task` for a StyleGAN2 on images with known factors (fields `clean` and `factors`)."""

    batch_fields: tuple[str, ...] = ("clean", "factors")
    optional_fields: tuple[str, ...] = ()
    has_validation_loss = True

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the networks and reads LPIPS, `config.weights.lpips`.

        Raises:
          InputError: mirrored images, bad weights of the loss, a mapping network too small for the
            factors, or LPIPS weights that are missing.
        """
        self.config = config
        if config.data.flip:
            raise InputError("config.data.flip: expected False, factors are those of the image")
        for name, weight in config.loss.items():
            if not weight >= 0:
                raise InputError(f"config.loss.{name}: expected from 0, got {weight}")
        self.g = build_generator(config)
        self.factors = factors_of_style(config.style)
        depth = self.g.mapping_depth - LAYERS
        if depth < 1:
            raise InputError(
                f"config.generator.mapping_depth: {self.g.mapping_depth}, expected above {LAYERS}"
            )
        self.embedding = FactorEmbedding(self.g.w_dim, depth)
        self.first_layers, self.read, self.constant = factor_layers(
            self.factors, z_dim=self.g.z_dim, width=self.g.w_dim
        )
        self.frozen: PyTree = {}
        self.initial: PyTree = {}
        self.weight_digests: dict[str, str] = {}
        self.lpips = None
        if config.loss.lpips:
            weights = load_weights(resolve_weights(config.weights.lpips))
            self.lpips, variables = weights.part("lpips")
            self.frozen = {"lpips": variables}
            self.weight_digests = {"lpips": fingerprint_arrays(variables)}

        def falling(rate):
            return cosine_schedule(rate, config.num_steps, warmup=100, end=rate / 50)

        rate, others = config.optimizer.learning_rate, config.optimizer.adam_learning_rate
        rates = {"synthesis": 1.0, "embedding": config.embedding_rate}
        self.optimizer = optax.multi_transform(
            {
                name: muon(falling(x * rate), adam_learning_rate=falling(x * others))
                for name, x in rates.items()
            },
            lambda params: {name: name for name in params},
        )

    def init(self, key: PRNGKeyArray, initial: PyTree) -> DistillationState:
        """See `Task.init`."""
        del initial
        g_key, embedding_key = jax.random.split(key)
        variables = self.g.init(g_key, jnp.zeros((1, self.g.z_dim)))
        synthesis = {k: v for k, v in variables["params"].items() if k != "mapping"}
        factors = jnp.zeros((1, len(self.factors.names)))
        embedding = self.embedding.init(embedding_key, factors)["params"]
        params = {"synthesis": synthesis, "embedding": embedding}
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
        return self.embedding.apply({"params": params["embedding"]}, factors)

    def _draw(self, params: PyTree, noise: PyTree, w: jax.Array) -> jax.Array:
        w_plus = jnp.broadcast_to(w[:, None], (len(w), self.g.num_styles, w.shape[-1]))
        variables = {"params": params["synthesis"], "noise": noise}
        return self.g.apply(variables, w_plus, "none", method="synthesize")

    def _mapping(self, params: PyTree) -> PyTree:
        """The mapping network's parameters: z to factors, and then the embedding."""
        layers = [*self.first_layers]
        for i in range(self.embedding.depth):
            layer = params["embedding"][f"dense_{i}"]
            kernel = layer["kernel"] / math.sqrt(len(layer["kernel"]))
            bias = layer["bias"]
            if i == 0:
                read, constant = (jnp.asarray(x, jnp.float32) for x in (self.read, self.constant))
                kernel, bias = matmul(read, kernel), bias + matmul(constant, kernel)
            layers.append((kernel, bias))
        return {
            f"dense_{i}": {
                "kernel": jnp.asarray(kernel, jnp.float32)
                * (math.sqrt(len(kernel)) / MAPPING_RATE),
                "bias": jnp.asarray(bias, jnp.float32) / MAPPING_RATE,
            }
            for i, (kernel, bias) in enumerate(layers)
        }

    def _generator(self, params: PyTree) -> PyTree:
        """The whole generator's parameters."""
        return {**params["synthesis"], "mapping": self._mapping(params)}

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

    def train_step(
        self,
        key: PRNGKeyArray,
        state: DistillationState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[DistillationState, dict[str, jax.Array]]:
        """See `Task.train_step`."""
        del key, phase
        networks = gathered(frozen)

        def losses(params):
            return self._image_loss(gathered(params), state.noise, networks, batch)

        return averaged_step(losses, state, self.optimizer, steps=self.config.ema_steps)

    def validate_step(
        self, key: PRNGKeyArray, state: DistillationState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: of the moving average, on held-out images."""
        del key
        return self._image_loss(gathered(state.ema), state.noise, gathered(frozen), batch)

    def images(
        self, key: PRNGKeyArray, state: DistillationState, frozen: PyTree, batch: Batch
    ) -> Float[jax.Array, "B columns R R 3"]:
        """See `Task.images`: a held-out image, what its factors give, and samples beside them."""
        del frozen
        ema, real = gathered(state.ema), normalize(batch)["clean"]
        z = jax.random.normal(key, (SAMPLES_PER_ROW * len(real), self.g.z_dim))
        f_z = self.g.apply({"params": self._generator(ema)}, z, method="map")
        w = jnp.concatenate([self._embed(ema, batch["factors"]), f_z])
        drawn = self._draw(ema, state.noise, w)
        own, samples = drawn[: len(real), None], drawn[len(real) :]
        samples = samples.reshape(len(real), SAMPLES_PER_ROW, *real.shape[1:])
        return jnp.concatenate([real[:, None], own, samples], axis=1)

    def exported(self, state: DistillationState) -> DistillationState:
        """See `Task.exported`."""
        return state.replace(params=None, opt_state=None)

    def export(self, state: DistillationState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`: the moving average's generator, with w_avg over samples."""
        variables = {"params": self._generator(state.ema), "noise": state.noise}
        export_generator(self.config, self.g, variables, directory, extra=extra)
