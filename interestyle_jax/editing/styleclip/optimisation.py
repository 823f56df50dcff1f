"""Latents moved until CLIP finds a text in the image. Source: StyleCLIP section 4 and
`optimization/run_optimization.py`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from interestyle_jax.editing.clip import Clip, generated_features
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.optimisation.schedule import learning_rates
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop
from interestyle_jax.models.products import einsum


class Optimised(NamedTuple):
    """Latents after the optimisation.

    Attributes:
      w_plus: [B, L, D].
      loss: [steps, B], before each step.
      clip_loss: [steps, B], 1 - cosine of image and text.
    """

    w_plus: jax.Array
    loss: np.ndarray
    clip_loss: np.ndarray


def optimise_latents(
    model: Model,
    clip: Clip,
    text: str,
    w_plus: Float[jax.Array | np.ndarray, "B L D"],
    *,
    steps: int = 300,
    rate: float = 0.1,
    l2_weight: float = 0.008,
    id_weight: float = 0.0,
    embedder: Model | None = None,
) -> Optimised:
    """Moves latents so that their images show what the text says; each image on its own.

    The loss is 1 - cosine of CLIP's features, l2_weight times the **sum** of squared changes of the
    latent, and id_weight times 1 - cosine of identity features. By Adam, with stored noise.

    Args:
      model: with a generator.
      clip: which reads images and text.
      text: what is asked for.
      w_plus: [B, L, D] to start from. StyleCLIP's "free generation" starts from
        `model.mean_latent()` with l2_weight 0.
      steps: of Adam.
      rate: the largest learning rate.
      l2_weight: 0 lets latents go anywhere.
      id_weight: 0 is the official default; its notebook has 0.005.
      embedder: of identity features (ArcFace); needed where id_weight is above 0.

    Raises:
      InputError: a bad text, latents of another shape, a weight below 0, or no embedder.
    """
    for name, weight in (("l2_weight", l2_weight), ("id_weight", id_weight), ("rate", rate)):
        if not weight >= 0:
            raise InputError(f"{name}: {weight}, expected from 0")
    if steps < 1:
        raise InputError(f"steps: {steps}, expected from 1")
    if id_weight and (embedder is None or "embedder" not in embedder.variables):
        raise InputError("id_weight: needs weights of a face embedder, expected ArcFace's")
    generator = registry.build(model.metadata["architectures"]["generator"])
    start = jnp.asarray(w_plus, jnp.float32)
    if start.ndim != 3 or start.shape[1:] != (generator.num_styles, generator.w_dim):
        raise InputError(
            f"w_plus: shape {start.shape}, expected [B, {generator.num_styles}, {generator.w_dim}]"
        )
    fixed: dict[str, Any] = {
        "generator": model.variables["generator"],
        "clip": clip.variables,
        "text": clip.described(text),
        "start": start,
        "l2_weight": jnp.float32(l2_weight),
        "id_weight": jnp.float32(id_weight),
    }
    modules: dict[str, Any] = {"generator": generator, "clip": clip.module, "embedder": None}
    if id_weight:
        module = registry.build(embedder.metadata["architectures"]["embedder"])
        modules["embedder"] = module
        fixed["embedder"] = embedder.variables["embedder"]
        images = _draw(fixed, start, module=generator)
        fixed["identity"] = _embed(fixed, images, module=module)
    state = optax.scale_by_adam().init(start)
    latents, losses, clip_losses = start, [], []
    for step_rate in learning_rates(steps, rate=rate):
        latents, state, loss, clip_loss = _step(
            fixed, latents, state, jnp.float32(step_rate), **modules
        )
        losses.append(loss)
        clip_losses.append(clip_loss)
    return Optimised(latents, *(np.stack(jax.device_get(x)) for x in (losses, clip_losses)))


def text_losses(
    fixed: Any,
    latents: Float[jax.Array, "B L D"],
    *,
    generator: Any,
    clip: Any,
    embedder: Any,
) -> tuple[Float[jax.Array, " B"], Float[jax.Array, " B"]]:
    """The loss and CLIP's part of it, [B] each, of latents [B, L, D]; pure."""
    images = _draw(fixed, latents, module=generator)
    features = generated_features(clip, fixed["clip"], images)
    clip_loss = 1 - einsum("be,e->b", features, fixed["text"])
    loss = clip_loss + fixed["l2_weight"] * jnp.sum(
        jnp.square(latents - fixed["start"]), axis=(1, 2)
    )
    if embedder is not None:
        vectors = _embed(fixed, images, module=embedder)
        loss = loss + fixed["id_weight"] * (1 - jnp.sum(vectors * fixed["identity"], axis=-1))
    return loss, clip_loss


@functools.partial(jax.jit, static_argnames=("generator", "clip", "embedder"))
def _step(fixed, latents, state, rate, *, generator, clip, embedder):
    def total(latents):
        losses = text_losses(fixed, latents, generator=generator, clip=clip, embedder=embedder)
        return losses[0].sum(), losses

    grads, losses = jax.grad(total, has_aux=True)(latents)
    updates, state = optax.scale_by_adam().update(grads, state)
    return latents - rate * updates, state, *losses


def _draw(fixed: Any, latents: jax.Array, *, module: Any) -> jax.Array:
    return module.apply(fixed["generator"], latents, "const", method="synthesize")


def _embed(fixed: Any, images: jax.Array, *, module: Any) -> jax.Array:
    if isinstance(module, FaceEmbedder):
        images = id_crop(images, size=module.input_size)
    return module.apply(fixed["embedder"], images)
