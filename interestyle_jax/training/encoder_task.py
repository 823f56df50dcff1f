"""The encoder's training, as a task of the shared train loop.

IntereStyle and ReStyle (section 3.5) are one step with different switches in `config.method`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import PRNGKeyArray

from interestyle_jax.config.encoder_checks import check_encoder_config, needs_masks
from interestyle_jax.data.fingerprint import fingerprint_arrays
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.interest.dilation import dilate
from interestyle_jax.interest.uninterest_filter import filtered_inputs, radii_at, schedule
from interestyle_jax.interest.uninterest_swap import swap_uninterest, swapped_pairs
from interestyle_jax.inversion.refinement import pool_to, refine
from interestyle_jax.inversion.resize import crop_to_shape, resize_images
from interestyle_jax.models import backend
from interestyle_jax.models.batch_norm import (
    after_passes,
    mean_of_devices,
    of_devices,
    of_passes,
)
from interestyle_jax.models.registry import describe, init
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.accumulation import accumulate
from interestyle_jax.training.encoder_gradients import EncoderLoss, LatentLoss, Position
from interestyle_jax.training.encoder_networks import load_networks
from interestyle_jax.training.initial_weights import apply_initial, read_initial
from interestyle_jax.training.losses import ImageLoss, embed_with, w_norm
from interestyle_jax.training.optimizer import make_optimizer
from interestyle_jax.training.precision import compute_dtype
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import save_weights

# The phase of a step that leaves the BatchNorm statistics alone.
FROZEN = "frozen_batch_norm"
# The phase of a step of one iteration.
SINGLE = "single_pass"


class EncoderState(flax.struct.PyTreeNode):
    """Everything that an encoder's training carries from step to step; `ema` is None without."""

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema: PyTree


class EncoderTask:
    """`Task` for an encoder of a frozen generator.

    Attributes:
      config: the run's config (`config.presets.encoder_config`).
      networks: the encoder, and what stays frozen around it.
      encoder: the module that is trained.
      generator: the frozen generator's module.
      frozen: `networks.frozen`.
      initial: variables that the training starts from (`training.initial_weights`).
      weight_digests: see `Task`.
    """

    batch_fields: tuple[str, ...] = ("image", "interest_mask")
    optional_fields: tuple[str, ...] = ()
    has_validation_loss = True

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the encoder, and reads the frozen networks (`encoder_networks.load_networks`).

        Raises:
          InputError: bad config field, or weights that are missing or lack a part.
        """
        check_encoder_config(config)
        self.config = config
        self.optional_fields = () if needs_masks(config) else ("interest_mask",)
        self.optimizer = make_optimizer(config)
        self.networks = load_networks(config)
        self.encoder, self.generator = self.networks.encoder, self.networks.generator
        self.frozen = self.networks.frozen
        weights = config.weights
        self.initial = read_initial(weights.trunk, weights.encoder, self.networks.shapes)
        self.weight_digests = self.networks.digests | {
            name: fingerprint_arrays(read) for name, read in self.initial.items()
        }
        self.feedback = self.encoder.input_channels == 6
        method = config.method
        self.loop = method.loop or backend.refinement_loop()
        self.joins_passes = backend.joins_passes()
        if not self.feedback and (method.num_iterations > 1 or method.disentangle_weight):
            raise InputError(
                "config.method: an encoder with 3 input channels runs once (num_iterations 1) and "
                "without disentanglement (disentangle_weight 0)"
            )
        size = self.encoder.input_size
        radii = radii_at(size, radii=method.filter_radii, reference=method.filter_reference)
        self.radii = schedule(radii, method.num_iterations)

    def init(self, key: PRNGKeyArray, initial: PyTree) -> EncoderState:
        """See `Task.init`."""
        network_key, initial_key = jax.random.split(key)
        variables = apply_initial(initial_key, init(network_key, self.encoder), initial)
        params = variables["params"]
        return EncoderState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            opt_state=self.optimizer.init(params),
            ema=jax.tree.map(jnp.copy, params) if self.config.ema_decay else None,
        )

    def _prepare(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """I [B, H, W, 3] in [-1, 1], its dilated interest mask [B, H, W, 1], at encoder size.

        Images of other proportions are squeezed, as inversion does. Without masks in the batch the
        mask is the whole image.
        """
        batch = normalize(batch)
        image = resize_images(batch["image"], self.networks.image_shape)
        if "interest_mask" not in batch:
            return image, jnp.ones((*image.shape[:-1], 1), image.dtype)
        mask = resize_images(batch["interest_mask"], self.networks.image_shape)
        return image, dilate(mask, self.config.method.dilation_radius)

    def _image_loss(self, frozen: PyTree) -> ImageLoss:
        lpips = embed = None
        networks = self.networks
        if networks.lpips is not None:

            def lpips(a, b):
                return networks.lpips.apply(frozen["lpips"], a, b)

        if networks.embedder is not None:
            dtype = compute_dtype(self.config)
            embed = embed_with(networks.embedder, frozen["embedder"], dtype=dtype)

        weights = self.config.loss.to_dict()
        for name in ("w_norm", "consistency"):
            weights.pop(name, None)
        return ImageLoss(weights, lpips, embed)

    def _encode(self, params: PyTree, options: Mapping[str, Any]):
        """`encode` for training passes of `refine`; the carry is the BatchNorm statistics."""

        def encode(batch_stats, x):
            variables = {"params": params, "batch_stats": batch_stats}
            delta, new = self.encoder.apply(
                variables, x, train=True, mutable=["batch_stats"], **options
            )
            return delta, new["batch_stats"]

        return encode

    def _encode_frozen(self, params: PyTree, options: Mapping[str, Any]):
        """`encode` with the running statistics, which stay as they are."""

        def encode(batch_stats, x):
            variables = {"params": params, "batch_stats": batch_stats}
            return self.encoder.apply(variables, x, **options), batch_stats

        return encode

    def _encode_both(self, params: PyTree, options: Mapping[str, Any]):
        """As `_encode`, for two passes whose rows are in turn; each has its own statistics."""
        encode = self._encode(params, options)

        def encode_both(batch_stats, x):
            deltas, moved = encode(of_passes(batch_stats, 2), x)
            return deltas, after_passes(batch_stats, moved)

        return encode_both

    def _synthesize(self, frozen: PyTree, key: jax.Array | None):
        """`synthesize` for `refine`: stored noise, or fresh noise in every iteration."""

        def synthesize(w_plus, i):
            noise = "const" if key is None else jax.random.fold_in(key, i)
            drawn = self.generator.apply(frozen["generator"], w_plus, noise, method="synthesize")
            return crop_to_shape(drawn, self.networks.image_shape)

        return synthesize

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
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        """The part of a step before the optimizer; see `EncoderLoss.gradients` for the results.

        Args:
          key: for the uninterest swap, and for the generator's noise where `config.method.noise`
            is "random".
          params: the encoder's parameters.
          batch_stats: its BatchNorm statistics before the step.
          frozen: `self.frozen`.
          batch: uint8 fields `batch_fields`.
          freeze_batch_norm: normalise by `batch_stats`, as inference does, and keep them.
          single_pass: one iteration, on the sharp image, without disentanglement.
        """
        method = self.config.method
        image, mask = self._prepare(batch)
        swap_key, key = jax.random.split(key)
        pair_weight = self.config.loss.get("consistency", 0.0)
        if pair_weight:
            seen, image, mask = swapped_pairs(image, mask)
        else:
            seen = swap_uninterest(swap_key, image, mask, share=method.swap)
        count, radii = (1, ()) if single_pass else (method.num_iterations, self.radii[:-1])
        inputs = filtered_inputs(seen, mask, count, radii, region=method.filter_region)
        encode, both, options = self._encode, self._encode_both, frozen.get("options", {})
        local = self.config.batch_norm == "local" and not freeze_batch_norm
        if freeze_batch_norm:
            encode = both = self._encode_frozen
        elif local:
            batch_stats = of_devices(batch_stats)
        loss = EncoderLoss(
            encode_with=lambda params: encode(params, options),
            synthesize=self._synthesize(frozen, key if method.noise == "random" else None),
            image_loss=self._image_loss(frozen),
            gradient=method.gradient,
            loop=self.loop,
            disentangle_weight=0.0 if single_pass else method.disentangle_weight,
            disentangle_through_w=method.disentangle_through_w,
            latent_loss=self._latent_loss(frozen),
            pair_weight=pair_weight,
            remat=self.config.remat == "iteration",
            encode_both_with=(lambda params: both(params, options)) if self.joins_passes else None,
        )
        start = self._start(batch_stats, frozen, image.shape[0])
        grads, batch_stats, metrics = loss.gradients(
            params, start, inputs, image, mask, interest_loss=method.interest_loss
        )
        return grads, mean_of_devices(batch_stats) if local else batch_stats, metrics

    def _latent_loss(self, frozen: PyTree) -> LatentLoss | None:
        """The loss on latents: `w_norm`, where it has a weight; further ones in other tasks."""
        weight = self.config.loss.get("w_norm", 0.0)
        if not weight:
            return None

        def loss(w_plus):
            norm = w_norm(w_plus, frozen["w_0"]).mean()
            return weight * norm, {"w_norm": norm}

        return loss

    def _inference_options(self, state: EncoderState) -> dict[str, Any]:
        """What the encoder is called with in inference, for tasks where that changes."""
        del state
        return {}

    def _start(self, batch_stats: PyTree, frozen: PyTree, batch_size: int) -> Position:
        """w_0 = w_avg and y_0 = G(w_avg) for every image of the batch."""
        w, image = (
            jnp.broadcast_to(x, (batch_size, *x.shape[1:]))
            for x in (frozen["w_0"], frozen["image_0"])
        )
        return Position(batch_stats, w, image if self.feedback else None)

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: `SINGLE` for the first `config.single_pass_until` of the steps.

        The first pass is most of an inversion, and a step of it takes less than half the time.

        `FROZEN` comes from `config.freeze_batch_norm_after` of the steps on. Five passes and the
        disentanglement pair share one running average, and inference meets no blurred input; the
        last steps train the encoder on the statistics that inference will use.
        """
        done = step / self.config.num_steps
        method = self.config.method
        differs = method.num_iterations > 1 or method.disentangle_weight > 0
        single = (SINGLE,) if differs and done < self.config.single_pass_until else ()
        return (*single, FROZEN) if done >= self.config.freeze_batch_norm_after else single

    def _options(self, phase: tuple[str, ...]) -> dict[str, Any]:
        """What `gradients` is called with in a step of this phase."""
        return {"freeze_batch_norm": FROZEN in phase, "single_pass": SINGLE in phase}

    def train_step(
        self,
        key: PRNGKeyArray,
        state: EncoderState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[EncoderState, dict[str, jax.Array]]:
        """See `Task.train_step`; the metrics are those of `gradients`, and `grad_norm`."""
        params, frozen = gathered((state.params, frozen))

        def gradients(key, batch_stats, batch):
            return self.gradients(
                key,
                params,
                batch_stats,
                frozen,
                batch,
                **self._options(phase),
            )

        grads, batch_stats, metrics = accumulate(
            key,
            gradients,
            state.batch_stats,
            {name: batch[name] for name in self.batch_fields if name in batch},
            self.config.accumulate,
            loop=self.loop,
        )
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema, decay = state.ema, self.config.ema_decay
        if decay:
            ema = jax.tree.map(lambda a, b: b + decay * (a - b), ema, params)
        squares = [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)]
        metrics["grad_norm"] = jnp.sqrt(sum(squares))
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
        )
        return state, metrics

    def _invert(self, state: EncoderState, frozen: PyTree, image: jax.Array):
        """The refinement as inference runs it: sharp input, running statistics, stored noise."""
        params = gathered(state.params if state.ema is None else state.ema)
        variables = {"params": params, "batch_stats": state.batch_stats}
        start = self._start(state.batch_stats, frozen, image.shape[0])
        options = self._inference_options(state)
        return refine(
            lambda carry, x: (self.encoder.apply(variables, x, **options), carry),
            self._synthesize(frozen, None),
            (image,) * self.config.method.num_iterations,
            start.w,
            image_0=start.image,
            loop=self.loop,
            feedback=self.feedback,
        )

    def validate_step(
        self, key: PRNGKeyArray, state: EncoderState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: L_Image and its parts on the (dilated) interest region.

        Where the data set has no masks, on the whole image. The encoder sees the sharp image in
        every iteration, and no mask.
        """
        del key
        frozen = gathered(frozen)
        image, mask = self._prepare(batch)
        y_hat = self._invert(state, frozen, image).images[-1]
        loss, parts = self._image_loss(frozen)(image, pool_to(y_hat, image.shape[1:3]), mask)
        return {"loss": loss} | parts

    def images(
        self, key: PRNGKeyArray, state: EncoderState, frozen: PyTree, batch: Batch
    ) -> jax.Array:
        """See `Task.images`: a row an image: input, interest mask if any, y_1 ... y_N."""
        del key
        frozen = gathered(frozen)
        image, mask = self._prepare(batch)
        images = self._invert(state, frozen, image).images
        columns = [image]
        if "interest_mask" in batch:
            columns.append(jnp.broadcast_to(2 * mask - 1, image.shape))
        columns += [pool_to(y, image.shape[1:3]) for y in images]
        return jnp.clip(jnp.stack(columns, axis=1), -1, 1)

    def exported(self, state: EncoderState) -> EncoderState:
        """See `Task.exported`."""
        return state.replace(opt_state=None)

    def export(self, state: EncoderState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`: encoder (the EMA where there is one), generator and w_avg."""
        params = state.params if state.ema is None else state.ema
        generator_architecture, generator_variables = self.networks.generator_part
        variables, architectures = self._more_to_export(state)
        save_weights(
            directory,
            {
                "encoder": {"params": params, "batch_stats": state.batch_stats},
                "generator": generator_variables,
                "w_avg": self.networks.w_avg,
            }
            | variables,
            family="interestyle",
            architectures={
                "encoder": describe(self.encoder),
                "generator": generator_architecture,
            }
            | architectures,
            licence=self.config.licence,
            dtype=self.config.storage_dtype,
            force=True,
            extra={"image_shape": list(self.networks.image_shape)} | extra,
        )

    def _more_to_export(self, state: EncoderState) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and architectures of further networks, for tasks that train more."""
        del state
        return {}, {}
