"""The update of an image discriminator, which generators' and in-domain encoders' trainings share.

Source: StyleGAN2 (Karras et al. 2020): logistic loss, and lazy R1 as an update of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax
from jaxtyping import Float

from interestyle_jax.training import gan_losses

PyTree = Any
# (parameters, images [B, H, W, 3]) -> logits [B].
JudgeWith = Callable[[PyTree, jax.Array], jax.Array]
R1 = "r1"


def lazy_adam(config: ml_collections.ConfigDict, interval: int) -> optax.GradientTransformation:
    """Adam for `interval` updates of the loss and one of its regulariser; 0: there is none.

    So many updates together have the rate and the memory of `interval` updates by the config.
    """
    ratio = interval / (interval + 1) if interval else 1.0
    return optax.adam(
        config.learning_rate * ratio, b1=config.b1**ratio, b2=config.b2**ratio, eps=1e-8
    )


def update(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    trained: tuple[PyTree, PyTree],
    *,
    factor: float = 1.0,
) -> tuple[PyTree, PyTree]:
    """(parameters, optimizer state) after one update by `factor` times the gradient."""
    params, opt_state = trained
    grads = jax.tree.map(lambda g: factor * g, grads)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def train_discriminator(
    judge: JudgeWith,
    optimizer: optax.GradientTransformation,
    trained: tuple[PyTree, PyTree],
    real: Float[jax.Array, "B H W 3"],
    fake: Float[jax.Array, "B H W 3"],
    *,
    r1_factor: float | None,
    r1: Float[jax.Array, ""],
) -> tuple[PyTree, PyTree, dict[str, Float[jax.Array, ""]]]:
    """An update of the logistic loss, and one of R1 where it is due.

    Args:
      judge: the discriminator.
      optimizer: its optimizer.
      trained: its parameters and optimizer state.
      real: images [B, H, W, 3] in [-1, 1].
      fake: of the generator, constants.
      r1_factor: of R1's gradient; None where R1 is not due.
      r1: its last value.

    Returns:
      Parameters, optimizer state, and scalars `d_loss`, `real_logit`, `fake_logit`, `r1`.
    """

    def objective(params):
        real_logits, fake_logits = judge(params, real), judge(params, fake)
        loss = gan_losses.discriminator_loss(real_logits, fake_logits)
        return loss, (real_logits.mean(), fake_logits.mean())

    (loss, (real_logit, fake_logit)), grads = jax.value_and_grad(objective, has_aux=True)(
        trained[0]
    )
    trained = update(optimizer, grads, trained)

    def r1_objective(params):
        return gan_losses.r1_penalty(lambda x: judge(params, x), real)

    if r1_factor is not None:
        r1, r1_grads = jax.value_and_grad(r1_objective)(trained[0])
        trained = update(optimizer, r1_grads, trained, factor=r1_factor)
    metrics = {"d_loss": loss, "real_logit": real_logit, "fake_logit": fake_logit, "r1": r1}
    return *trained, metrics
