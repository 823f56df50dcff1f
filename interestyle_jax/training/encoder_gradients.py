"""Gradients of the encoder's loss (Eq. 3) in the three gradient modes; pure."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.inversion.disentanglement import disentangle
from interestyle_jax.inversion.refinement import (
    Encode,
    Synthesize,
    beside_result,
    pool_to,
    refine,
)
from interestyle_jax.training.losses import ImageLoss, disentanglement_loss, total_loss

PyTree = Any
LatentLoss = Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class Position(NamedTuple):
    """Where a refinement stands: BatchNorm statistics, w_i [B, L, D], y_i [B, R, R, 3].

    The image is None for an encoder that sees no previous result.
    """

    batch_stats: PyTree
    w: jax.Array
    image: jax.Array | None


def in_turn(
    a: Float[jax.Array, "B ..."], b: Float[jax.Array, "B ..."]
) -> Float[jax.Array, "2*B ..."]:
    """Rows of a and b, both [B, ...], in turn: [2 B, ...]. Devices that share them keep theirs."""
    return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])


def taken_apart(
    rows: Float[jax.Array, "2*B ..."],
) -> tuple[Float[jax.Array, "B ..."], Float[jax.Array, "B ..."]]:
    """The a and b, both [B, ...], of rows [2 B, ...] from `in_turn`."""
    pairs = rows.reshape(-1, 2, *rows.shape[1:])
    return pairs[:, 0], pairs[:, 1]


@dataclasses.dataclass(frozen=True)
class EncoderLoss:
    """The loss of one training step, as a function of the encoder's parameters.

    Attributes:
      encode_with: params -> `encode` as `refine` takes it, with BatchNorm statistics as its carry.
      synthesize: as `refine` takes it; constant in the parameters.
      image_loss: L_Image.
      gradient: "last" (one differentiated pass of E), "each" (ReStyle: the losses of all
        iterations, each iteration on constants, so that only one pass is in memory at a time), or
        "through" (the loss at iteration N through the whole rematerialised loop).
      loop: "unroll" or "scan".
      disentangle_weight: lambda of Eq. 3; with 0 the pass is left out.
      disentangle_through_w: see `disentangle`.
      latent_loss: `w_plus [B, L, D] -> (scalar, {name: scalar})`, added to L_Image in every
        iteration that is differentiated.
      pair_weight: factor of L_Image between the results of rows 2i and 2i + 1, inside the mask; the
        rows show one interest region (`interest.uninterest_swap.swapped_pairs`).
      remat: compute an iteration, and the disentanglement pass, again in its backward pass.
      encode_both_with: as `encode_with`, but x holds the rows of two passes in turn (`in_turn`),
        and the carry comes back as after one and then the other. Given, the last iteration and the
        disentanglement pass are computed in one call of each network.
    """

    encode_with: Callable[[PyTree], Encode]
    synthesize: Synthesize
    image_loss: ImageLoss
    gradient: str = "last"
    loop: str = "unroll"
    disentangle_weight: float = 0.0
    disentangle_through_w: bool = False
    latent_loss: LatentLoss | None = None
    pair_weight: float = 0.0
    remat: bool = False
    encode_both_with: Callable[[PyTree], Encode] | None = None

    def gradients(
        self,
        params: PyTree,
        start: Position,
        inputs: Sequence[Float[jax.Array, "B S1 S2 3"]],
        image: Float[jax.Array, "B S1 S2 3"],
        mask: Float[jax.Array, "B S1 S2 1"],
        *,
        interest_loss: bool = True,
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        """Differentiates the mean loss of a batch with respect to `params`.

        Args:
          params: the encoder's parameters.
          start: statistics before the step, w_0 and y_0, over the whole batch.
          inputs: I_1 ... I_N, [B, S, S, 3].
          image: I, the sharp image, [B, S, S, 3]; the target.
          mask: I_mask, [B, S, S, 1].
          interest_loss: multiply the mask in before L_Image (Eq. 3); without, the loss is on the
            whole image (ReStyle). Eq. 1 always has the mask.

        Returns:
          The gradient, the statistics after N passes of E (N + 1 with disentanglement), and scalar
          metrics: `loss` (what is differentiated), the parts of L_Image at iteration N, and with
          disentanglement `ind_loss` and its parts `ind_*`.
        """
        count = len(inputs)
        case = (image, mask, mask if interest_loss else None)
        final = jax.value_and_grad(self._final_objective, has_aux=True)
        position, sums = start, None
        if self.gradient == "through":
            first, rest = 1, tuple(inputs)
        else:
            first, rest = count, tuple(inputs[-1:])
            if count > 1 and self.gradient == "each":
                position, *sums = self._earlier_gradients(params, start, inputs[:-1], case)
            elif count > 1:
                # Nothing is differentiated here; "each" lets "scan" take all of the iterations.
                position, _ = self._run(params, start, inputs[:-1], 1, "each")
        (loss, (batch_stats, metrics)), grads = final(params, position, rest, first, case)
        if sums is not None:
            loss, grads = jax.tree.map(jnp.add, tuple(sums), (loss, grads))
        return grads, batch_stats, {"loss": loss} | metrics

    def _run(self, params, position, inputs, first, gradient):
        result = refine(
            self.encode_with(params),
            self.synthesize,
            inputs,
            position.w,
            image_0=position.image,
            carry=position.batch_stats,
            gradient=gradient,
            loop=self.loop,
            feedback=position.image is not None,
            first_iteration=first,
            last_image_only=True,
        )
        image = None if position.image is None else result.images[-1]
        return Position(result.carry, result.w_plus[-1], image), result.images[-1]

    def _objective(self, params, position, inputs, first, case):
        """L_Image after the iterations from `first` on."""

        def objective(params, position, inputs, first, case):
            image, _, loss_mask = case
            gradient = "last" if len(inputs) == 1 else "through"
            position, y_hat = self._run(params, position, inputs, first, gradient)
            y_hat = pool_to(y_hat, image.shape[1:3])
            loss, parts = self.image_loss(image, y_hat, loss_mask)
            loss, parts = self._further_terms(loss.mean(), parts, position.w, y_hat, loss_mask)
            return loss, (position, parts)

        return self._remat(objective)(params, position, inputs, first, case)

    def _further_terms(self, loss, parts, w, y_hat, loss_mask):
        """With what is added to L_Image of an iteration that is differentiated."""
        if self.pair_weight:
            apart, _ = self.image_loss(y_hat[::2], y_hat[1::2], loss_mask[::2])
            loss, parts = loss + self.pair_weight * apart.mean(), parts | {"consistency": apart}
        if self.latent_loss is not None:
            more, of_latents = self.latent_loss(w)
            loss, parts = loss + more, parts | of_latents
        return loss, parts

    def _remat(self, function):
        return jax.checkpoint(function) if self.remat else function

    def _final_objective(self, params, position, inputs, first, case):
        """Eq. 3, after the iterations from `first` to N."""
        if self.encode_both_with and self.disentangle_weight and len(inputs) == 1:
            return self._remat(self._joined_objective)(params, position, inputs[0], first, case)
        loss, (position, parts) = self._objective(params, position, inputs, first, case)
        metrics = {k: v.mean() for k, v in parts.items()}
        if not self.disentangle_weight:
            return loss, (position.batch_stats, metrics)

        def objective(params, position, iteration, case):
            image, mask, _ = case
            pair = disentangle(
                self.encode_with(params),
                self.synthesize,
                image,
                mask,
                position.w,
                carry=position.batch_stats,
                through_w=self.disentangle_through_w,
                iteration=iteration,
            )
            y_hat = pool_to(pair.image, image.shape[1:3])
            return *disentanglement_loss(self.image_loss, image, y_hat, mask), pair.carry

        ind_loss, ind_parts, batch_stats = self._remat(objective)(
            params, position, first + len(inputs), case
        )
        loss = total_loss(loss, ind_loss.mean(), self.disentangle_weight)
        metrics |= {f"ind_{k}": v.mean() for k, v in ({"loss": ind_loss} | ind_parts).items()}
        return loss, (batch_stats, metrics)

    def _joined_objective(self, params, position, input_n, number, case):
        """Eq. 3 after iteration N, number `number`, with both passes in one call of each network.

        Fresh noise is that of iteration N for both.
        """
        image, mask, loss_mask = case
        seen = beside_result(input_n, position.image)
        pair = jnp.concatenate([image, image * mask], axis=-1)
        encode = self.encode_both_with(params)
        deltas, batch_stats = encode(position.batch_stats, in_turn(seen, pair))
        delta, delta_b = taken_apart(deltas)
        w_n = position.w + delta
        w_b = (w_n if self.disentangle_through_w else jax.lax.stop_gradient(w_n)) + delta_b
        y_hat = pool_to(self.synthesize(in_turn(w_n, w_b), number), image.shape[1:3])
        masks = in_turn(jnp.ones_like(mask) if loss_mask is None else loss_mask, mask)
        found = self.image_loss(in_turn(image, image), y_hat, masks)
        (loss, parts), (ind_loss, ind_parts) = (
            jax.tree.map(lambda rows, k=k: taken_apart(rows)[k], found) for k in (0, 1)
        )
        y_n = taken_apart(y_hat)[0]
        loss, parts = self._further_terms(loss.mean(), parts, w_n, y_n, loss_mask)
        loss = total_loss(loss, ind_loss.mean(), self.disentangle_weight)
        metrics = parts | {f"ind_{k}": v for k, v in ({"loss": ind_loss} | ind_parts).items()}
        return loss, (batch_stats, {k: v.mean() for k, v in metrics.items()})

    def _earlier_gradients(self, params, start, inputs, case):
        """The position before iteration N, and the sums of losses and gradients until there."""
        one = jax.value_and_grad(self._objective, has_aux=True)

        def accumulate(sums, at):
            position, loss, grads = sums
            x_i, i = at
            (more, (position, _)), step = one(params, position, (x_i,), i, case)
            return (position, loss + more, jax.tree.map(jnp.add, grads, step)), None

        zero = jnp.zeros((), start.w.dtype)
        sums = (start, zero, jax.tree.map(jnp.zeros_like, params))
        if self.loop == "scan":
            numbers = jnp.arange(1, len(inputs) + 1)
            return jax.lax.scan(accumulate, sums, (jnp.stack(inputs), numbers))[0]
        for i, x_i in enumerate(inputs, start=1):
            sums, _ = accumulate(sums, (x_i, i))
        return sums
