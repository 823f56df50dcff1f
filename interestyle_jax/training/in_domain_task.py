"""IDInvert's domain-guided encoder, for StyleGAN2: real images, one pass, and a discriminator.

L2, a perceptual term and softplus(-D(G(E(x)))), against a discriminator that is trained beside the
encoder with R1. An adaptation: IDInvert is of StyleGAN1 at 256. Here the encoder is the config's,
the discriminator StyleGAN2's at the encoder's input size, with lazy R1 (every 16 steps, the
published one at every step), and VGG16 is torchvision's on ImageNet's colour statistics (the
published one Keras's on BGR means, so the weight 5e-5 is of another scale).
Source: IDInvert (Zhu et al. 2020), section 3.1, and its published training code.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.fingerprint import fingerprint_arrays
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.distance import l2
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.registry import describe
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.discriminator_update import R1, lazy_adam, train_discriminator
from interestyle_jax.training.encoder_task import FROZEN, EncoderState, EncoderTask
from interestyle_jax.training.losses import ImageLoss
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import load_weights, resolve_weights

PERCEPTUAL = ("conv4_3", "lpips")
# Of VGG16's maps that LPIPS compares, the one behind conv4_3.
CONV4_3 = 3


class InDomainState(EncoderState):
    """An encoder's state, and that of the discriminator of images."""

    discriminator: PyTree
    discriminator_opt: PyTree
    r1: jax.Array


@dataclasses.dataclass(frozen=True)
class InDomainLoss:
    """L_Image, the features' squared difference, and the adversarial term.

    Attributes:
      image_loss: L2, and LPIPS where that stands for the features.
      features: images [B, H, W, 3] -> a map [B, h, w, C]; None leaves the term out.
      features_weight: its factor.
      judge: images -> logits [B]; None (in validation) leaves the term out.
      judge_weight: its factor.
    """

    image_loss: ImageLoss
    features: Callable[[jax.Array], jax.Array] | None
    features_weight: float
    judge: Callable[[jax.Array], jax.Array] | None
    judge_weight: float

    def __call__(
        self,
        image: Float[jax.Array, "B H W 3"],
        y_hat: Float[jax.Array, "B H W 3"],
        mask: Float[jax.Array, "B H W 1"] | None,
    ) -> tuple[Float[jax.Array, " B"], dict[str, Float[jax.Array, " B"]]]:
        """The sum [B] and its unweighted parts; arguments as `ImageLoss.__call__`."""
        total, parts = self.image_loss(image, y_hat, mask)
        if self.features is not None:
            a, b = (x if mask is None else x * mask for x in (image, y_hat))
            parts["conv4_3"] = l2(jax.lax.stop_gradient(self.features(a)), self.features(b))
            total = total + self.features_weight * parts["conv4_3"]
        if self.judge is not None:
            parts["adversarial"] = jax.nn.softplus(-self.judge(y_hat))
            total = total + self.judge_weight * parts["adversarial"]
        return total, parts


class InDomainEncoderTask(EncoderTask):
    """`EncoderTask` with IDInvert's losses; `config.in_domain` has their options."""

    def __init__(self, config: ml_collections.ConfigDict):
        """See `EncoderTask`.

        Raises:
          InputError: bad config field, VGG16 not given where its features are asked for, or a
            discriminator of another size.
        """
        super().__init__(config)
        options, names, size = config.in_domain, config.weights, self.encoder.input_size
        if config.method.num_iterations != 1 or config.method.interest_loss:
            raise InputError(
                "config.in_domain.weight: expected 0 with several iterations or an interest loss"
            )
        for field in ("weight", "features_weight", "r1_gamma"):
            if not options[field] >= 0:
                raise InputError(f"config.in_domain.{field}: expected from 0, got {options[field]}")
        if options.r1_every < 1:
            raise InputError(f"config.in_domain.r1_every: expected from 1, got {options.r1_every}")
        if options.perceptual not in PERCEPTUAL:
            raise InputError(
                f"config.in_domain.perceptual: expected one of {', '.join(PERCEPTUAL)}, got "
                f"{options.perceptual!r}"
            )
        if self.networks.image_shape != (size, size):
            raise InputError("config.image_shape: expected () with config.in_domain, square images")
        self._vgg = None
        if options.perceptual == "conv4_3":
            if not names.vgg:
                raise InputError(
                    "config.weights.vgg: expected lpips_vgg weights, whose conv4_3 IDInvert "
                    "compares; with config.in_domain.perceptual=lpips LPIPS takes its place"
                )
            self._vgg, variables = load_weights(resolve_weights(names.vgg)).part("lpips")
            if self._vgg.network != "vgg":
                raise InputError(f"{names.vgg}: LPIPS on {self._vgg.network}, expected on VGG16")
            self.frozen = self.frozen | {"vgg": variables}
            self.weight_digests |= {"vgg": fingerprint_arrays(variables)}
        self.d = Discriminator(resolution=size, **options.discriminator.to_dict())
        if names.discriminator:
            self.d, variables = load_weights(resolve_weights(names.discriminator)).part(
                "discriminator"
            )
            if self.d.resolution != size:
                raise InputError(
                    f"{names.discriminator}: a discriminator of {self.d.resolution} pixels, "
                    f"expected {size}, the encoder's input"
                )
            self.initial = self.initial | {"discriminator": variables["params"]}
            self.weight_digests |= {"discriminator": fingerprint_arrays(variables)}
        self.d_optimizer = lazy_adam(options.optimizer, options.r1_every if options.r1_gamma else 0)

    def init(self, key: PRNGKeyArray, initial: PyTree) -> InDomainState:
        """See `Task.init`."""
        encoder_key, d_key = jax.random.split(key)
        state = super().init(encoder_key, initial)
        size = self.d.resolution
        if "discriminator" in initial:
            params = jax.tree.map(jnp.asarray, initial["discriminator"])
        else:
            params = self.d.init(d_key, jnp.zeros((1, size, size, 3)))["params"]
        return InDomainState(
            **vars(state),
            discriminator=params,
            discriminator_opt=self.d_optimizer.init(params),
            r1=jnp.zeros(()),
        )

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: also "r1" at the steps with R1's update."""
        options = self.config.in_domain
        due = options.r1_gamma and step % options.r1_every == 0
        return (*super().phase(step), *((R1,) if due else ()))

    def _judge(self, params: PyTree, images: jax.Array) -> jax.Array:
        return self.d.apply({"params": gathered(params)}, images)

    def _image_loss(self, frozen: PyTree) -> InDomainLoss:  # type: ignore[override]
        options, vgg, params = self.config.in_domain, self._vgg, frozen.get("discriminator")
        base = super()._image_loss(frozen)
        features = judge = None
        if vgg is not None:
            # LPIPS gives its place to the features.
            base = dataclasses.replace(base, lpips=None)

            def features(images):
                return vgg.apply(frozen["vgg"], images, method="features")[CONV4_3]

        if params is not None:

            def judge(images):
                return self._judge(params, images)

        return InDomainLoss(base, features, options.features_weight, judge, options.weight)

    def train_step(  # type: ignore[override]
        self,
        key: PRNGKeyArray,
        state: InDomainState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[InDomainState, dict[str, jax.Array]]:
        """See `Task.train_step`: an update of the discriminator, then of the encoder against it."""
        encoder_key, noise_key = jax.random.split(key)
        image, _ = self._prepare(batch)
        options = self.config.in_domain
        fake = self._fake(noise_key, state.params, state.batch_stats, frozen, image, phase)
        discriminator, opt_state, metrics = train_discriminator(
            self._judge,
            self.d_optimizer,
            (state.discriminator, state.discriminator_opt),
            image,
            jax.lax.stop_gradient(fake),
            r1_factor=0.5 * options.r1_gamma * options.r1_every if R1 in phase else None,
            r1=state.r1,
        )
        state = state.replace(
            discriminator=discriminator, discriminator_opt=opt_state, r1=metrics["r1"]
        )
        after: Any
        after, trained = super().train_step(
            encoder_key, state, frozen | {"discriminator": discriminator}, batch, phase=phase
        )
        return after, trained | metrics

    def _fake(self, key, params, batch_stats, frozen, image, phase):
        """G(E(x)) at the encoder's input size; the pass leaves no trace in the statistics."""
        params, frozen = gathered((params, frozen))
        encode = (self._encode_frozen if FROZEN in phase else self._encode)(params, {})
        delta, _ = encode(batch_stats, image)
        start = self._start(batch_stats, frozen, image.shape[0])
        noise = key if self.config.method.noise == "random" else None
        y_hat = self._synthesize(frozen, noise)(start.w + delta, 1)
        return pool_to(y_hat, image.shape[1:3])

    def exported(self, state: InDomainState) -> InDomainState:  # type: ignore[override]
        """See `Task.exported`."""
        return state.replace(opt_state=None, discriminator_opt=None)

    def _more_to_export(  # type: ignore[override]
        self, state: InDomainState
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The discriminator's variables and architecture, by part."""
        return (
            {"discriminator": {"params": state.discriminator}},
            {"discriminator": describe(self.d)},
        )
