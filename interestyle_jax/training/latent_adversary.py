"""e4e's adversary: a discriminator that holds an encoder's latents against the mapping network's.

Source: e4e's official `training/coach.py` and official `models/latent_codes_pool.py`.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, PRNGKeyArray

from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.registry import init
from interestyle_jax.training.gan_losses import discriminator_loss, r1_penalty

PyTree = Any
Judge = Callable[[jax.Array], jax.Array]


def stage_at(
    step: Int[jax.Array, ""] | int, start: int, every: int, num_styles: int
) -> Int[jax.Array, ""]:
    """How many rows have a change of their own at the step after `step`, in progressive training.

    0, all rows alike, before step `start`; there row 1 gets its own, and `every` steps later each
    next one, until all have.

    Args:
      step: int32 scalar, traced or not.
      start: steps before row 1.
      every: steps from one row to the next.
      num_styles: L.

    Returns:
      int32 scalar, from 0 to L - 1.
    """
    reached = 1 + (jnp.asarray(step) - start) // every
    return jnp.clip(jnp.where(step < start, 0, reached), 0, num_styles - 1).astype(jnp.int32)


def adversarial_loss(
    judge: Judge, w_plus: Float[jax.Array, "B L D"], stage: Int[jax.Array, ""] | int
) -> Float[jax.Array, ""]:
    """The encoder's loss against the discriminator: mean of softplus(-D(w_i)) over active rows.

    Args:
      judge: latents [N, D] -> logits [N].
      w_plus: [B, L, D].
      stage: rows 0 ... stage are active.

    Returns:
      A scalar.
    """
    batch, rows, _ = w_plus.shape
    logits = judge(w_plus.reshape(batch * rows, -1)).reshape(batch, rows)
    active = jnp.arange(rows) <= stage
    return jnp.sum(jax.nn.softplus(-logits).mean(axis=0) * active) / active.sum()


def delta_norm(
    w_plus: Float[jax.Array, "B L D"], stage: Int[jax.Array, ""] | int
) -> Float[jax.Array, ""]:
    """Sum over active rows i > 0 of the mean over images of |w_i - w_0|_2.

    Args:
      w_plus: [B, L, D].
      stage: rows 1 ... stage are active (ReStyle's coach; e4e's own leaves out the last of them).

    Returns:
      A scalar; its gradient is 0 where a row equals row 0.
    """
    squares = jnp.sum(jnp.square(w_plus[:, 1:] - w_plus[:, :1]), axis=-1)
    active = (jnp.arange(1, w_plus.shape[1]) <= stage) & (squares > 0)
    return jnp.sum(jnp.where(active, jnp.sqrt(jnp.where(active, squares, 1.0)), 0.0).mean(axis=0))


class Pool(flax.struct.PyTreeNode):
    """Latents of earlier steps: [size, D], of which the first `count` are filled."""

    latents: jax.Array
    count: jax.Array


def query(
    key: PRNGKeyArray, pool: Pool, latents: Float[jax.Array, "B D"]
) -> tuple[Pool, Float[jax.Array, "B D"]]:
    """Latents to show the discriminator: these, or earlier ones in their place.

    Until the pool is full every latent is stored and returned. Then, with probability 1/2 each, a
    latent changes places with a random one of the pool, which is returned; else it is returned and
    not stored. A pool of size 0 returns what it is given.

    Args:
      key: for the choices.
      pool: as it is before.
      latents: [B, D].

    Returns:
      The pool afterwards, and latents [B, D].
    """
    size = pool.latents.shape[0]
    if size == 0:
        return pool, latents

    def one(pool, at):
        key, w = at
        swap_key, place_key = jax.random.split(key)
        full = pool.count >= size
        place = jnp.where(full, jax.random.randint(place_key, (), 0, size), pool.count)
        swap = full & jax.random.bernoulli(swap_key)
        shown = jnp.where(swap, pool.latents[place], w)
        stored = jnp.where(full & ~swap, pool.latents[place], w)
        filled = jnp.minimum(pool.count + 1, size)
        return Pool(pool.latents.at[place].set(stored), filled), shown

    return jax.lax.scan(one, pool, (jax.random.split(key, len(latents)), latents))


class Adversary(flax.struct.PyTreeNode):
    """The discriminator's state: parameters, optimizer, and the pools of real and fake latents."""

    params: PyTree
    opt_state: PyTree
    real: Pool
    fake: Pool


class LatentAdversary:
    """Trains the discriminator of latents.

    Attributes:
      module: the discriminator, w [N, D] -> logits [N].
    """

    def __init__(
        self,
        w_dim: int,
        *,
        learning_rate: float = 2e-5,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        pool_size: int = 50,
    ):
        """The defaults are the official ones.

        Args:
          w_dim: D.
          learning_rate: Adam's.
          r1_gamma: weight of R1; 0 leaves it out.
          r1_every: steps between two of its updates.
          pool_size: latents in each pool; 0 for none.
        """
        self.module = LatentDiscriminator(w_dim=w_dim)
        self.optimizer = optax.adam(learning_rate)
        self.r1_gamma, self.r1_every, self.pool_size = r1_gamma, r1_every, pool_size

    def init(self, key: PRNGKeyArray) -> Adversary:
        """A fresh discriminator and empty pools."""
        params = init(key, self.module)["params"]

        def pool() -> Pool:
            latents = jnp.zeros((self.pool_size, self.module.w_dim))
            return Pool(latents, jnp.zeros((), jnp.int32))

        return Adversary(params, self.optimizer.init(params), pool(), pool())

    def judge(self, params: PyTree) -> Judge:
        """The discriminator with these parameters."""
        return lambda w: self.module.apply({"params": params}, w)

    def train(
        self,
        key: PRNGKeyArray,
        state: Adversary,
        real: Float[jax.Array, "B D"],
        fake: Float[jax.Array, "B D"],
        step: Int[jax.Array, ""],
    ) -> tuple[Adversary, dict[str, Float[jax.Array, ""]]]:
        """One update of the discriminator, and every `r1_every` steps a second one for R1 alone.

        Args:
          key: for the pools.
          state: before the step.
          real: latents of the mapping network, [B, D].
          fake: latents of the encoder, [B, D]; constants.
          step: int32 scalar, from 0.

        Returns:
          The state afterwards, and scalar metrics `latent_d_loss` and `latent_r1` (0 between its
          updates).
        """
        real_key, fake_key = jax.random.split(key)
        real_pool, real = query(real_key, state.real, real)
        fake_pool, fake = query(fake_key, state.fake, fake)

        def loss(params):
            judge = self.judge(params)
            return discriminator_loss(judge(real), judge(fake))

        value, grads = jax.value_and_grad(loss)(state.params)
        now = self._update(grads, (state.params, state.opt_state))

        def regularise(now):
            def penalty(params):
                return r1_penalty(self.judge(params), real)

            r1, grads = jax.value_and_grad(penalty)(now[0])
            factor = self.r1_gamma / 2 * self.r1_every
            grads = jax.tree.map(lambda g: factor * g, grads)
            return self._update(grads, now), r1

        r1 = jnp.zeros(())
        if self.r1_gamma:
            # The branch is small: a compiled step of its own would be most of the whole step again.
            now, r1 = jax.lax.cond(
                step % self.r1_every == 0, regularise, lambda now: (now, jnp.zeros(())), now
            )
        params, opt_state = now
        return (
            Adversary(params, opt_state, real_pool, fake_pool),
            {"latent_d_loss": value, "latent_r1": r1},
        )

    def _update(self, grads, now):
        params, opt_state = now
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
