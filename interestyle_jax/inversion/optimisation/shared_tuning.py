"""One generator tuned on many images, each at a latent of its own: pivotal tuning of a film."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.optimisation.optimiser import MAPPING
from interestyle_jax.inversion.optimisation.recipes import Terms
from interestyle_jax.inversion.optimisation.steps import draw
from interestyle_jax.inversion.optimisation.terms import Networks, Target, image_losses, prepare
from interestyle_jax.parallel.sharding import batch_sharding, replicated
from interestyle_jax.weights import load_weights, resolve_weights

# Source: STIT (Tzaban et al. 2022), its weights of L2 and LPIPS; it has no locality term.
TERMS = Terms(pixel=10.0, lpips=1.0, lpips_network="alex", perceptual_size=None)
# Of Adam; PTI's. STIT has a tenth of it and 300 passes.
LEARNING_RATE = 3e-4


class Frames(NamedTuple):
    """Some images and where they are to be met.

    Attributes:
      w_plus: [B, L, D].
      images: [B, H, W, 3] in [-1, 1], of the size that is drawn.
      masks: [B, H, W, 1] in [0, 1], multiplied into images and what is drawn.
    """

    w_plus: Float[np.ndarray, "B L D"]
    images: Float[np.ndarray, "B H W 3"]
    masks: Float[np.ndarray, "B H W 1"]


def tune_generator(
    model: Model,
    batches: Iterable[Frames],
    *,
    learning_rate: float = LEARNING_RATE,
    lpips: str | Path = "lpips_alex",
    on_step: Callable[[float], None] = lambda loss: None,
) -> dict[str, Any]:
    """Tunes the synthesis on batches, one step of Adam each; noise maps and mapping stay.

    Args:
      model: has the generator.
      batches: of one size, a multiple of the model's devices.
      learning_rate: of Adam.
      lpips: weights of AlexNet's LPIPS.
      on_step: gets the loss before each step.

    Returns:
      The generator's variables.

    Raises:
      InputError: another LPIPS network, or a loss that is not finite.
    """
    module, own = load_weights(resolve_weights(lpips)).part("lpips")
    if module.network != TERMS.lpips_network:
        raise InputError(f"{lpips}: holds LPIPS by {module.network}, expected AlexNet's")
    crop = None
    if "encoder" in model.variables and len(set(model.input_shape)) > 1:
        crop = model.input_shape
    networks = Networks(model.network("generator"), alex=module, crop=crop)
    mesh = model.mesh
    place, rows = (None, None) if mesh is None else (replicated(mesh), batch_sharding(mesh))
    generator = model.variables["generator"]
    variables = {"generator": generator, "alex": jax.device_put(own, place)}
    # Copies: these are donated, the model's are not.
    params = {k: v for k, v in generator["params"].items() if k != MAPPING}
    params = jax.tree.map(jnp.array, jax.device_put(params, place))
    adam = jax.device_put(optax.scale_by_adam().init(params), place)
    rate = jax.device_put(np.float32(learning_rate), place)
    for batch in batches:
        params, adam, loss = _step(
            variables, params, adam, jax.device_put(batch, rows), rate, networks=networks
        )
        value = float(loss)
        if not np.isfinite(value):
            raise InputError(f"--tune-rate: {learning_rate:g}, its loss is not finite, try a tenth")
        on_step(value)
    return {**generator, "params": {**generator["params"], **params}}


@functools.partial(jax.jit, static_argnames="networks", donate_argnames=("params", "adam"))
def _step(variables, params, adam, batch, rate, *, networks):
    target = prepare(networks, variables, TERMS, Target(batch.images, {"all": batch.masks}))

    def mean_loss(params):
        given = variables["generator"]
        tuned = {**given, "params": {**given["params"], **params}}
        images = draw(networks, {**variables, "generator": tuned}, batch.w_plus)
        parts = image_losses(networks, variables, TERMS, target, images)
        return jnp.mean(sum(getattr(TERMS, name) * loss for name, loss in parts.items()))

    loss, gradient = jax.value_and_grad(mean_loss)(params)
    updates, adam = optax.scale_by_adam().update(gradient, adam)
    return jax.tree.map(lambda x, update: x - rate * update, params, updates), adam, loss
