"""Iterative refinement: the loop of Fig. 4, for training, inversion and evaluation alike."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.errors import InputError

GRADIENTS = ("last", "each", "through")
LOOPS = ("unroll", "scan")

Encode = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
Synthesize = Callable[[jax.Array, Any], jax.Array]


class Refinement(NamedTuple):
    """What the loop leaves behind.

    Attributes:
      w_plus: [N, B, L, 512], the latents w_1 ... w_N.
      images: [N, B, R, R, 3], the images y_1 ... y_N = G(w_i), not clipped; [1, B, R, R, 3],
        y_N alone, where the others were not asked for.
      carry: what the last call of `encode` returned beside its delta.
    """

    w_plus: jax.Array
    images: jax.Array
    carry: Any


def pool_to(image: Float[jax.Array, "B H W C"], size: Sequence[int]) -> Float[jax.Array, "B h w C"]:
    """Average-pools `image [B, H, W, C]` to `size` (height, width), as `AdaptiveAvgPool2d` does.

    Sizes that divide: means of equal blocks; sizes that are multiples: repeated pixels.

    Raises:
      InputError: neither size divides the other.
    """
    for axis, target in ((1, size[0]), (2, size[1])):
        have = image.shape[axis]
        if have == target:
            continue
        if have % target == 0:
            shape = (*image.shape[:axis], target, have // target, *image.shape[axis + 1 :])
            image = image.reshape(shape).mean(axis=axis + 1)
        elif target % have == 0:
            image = jnp.repeat(image, target // have, axis=axis)
        else:
            raise InputError(f"image size: cannot pool {have} pixels to {target}")
    return image


def beside_result(
    image: Float[jax.Array, "B S1 S2 3"], result: Float[jax.Array, "B R R 3"] | None
) -> Float[jax.Array, "B S1 S2 C"]:
    """What the encoder sees: I [B, S, S, 3] and y_{i-1} [B, R, R, 3] at its size, side by side.

    Without a result, I alone.
    """
    if result is None:
        return image
    result = pool_to(result, image.shape[1:3]).astype(image.dtype)
    return jnp.concatenate([image, result], axis=-1)


def start_from(
    synthesize: Synthesize, w_avg: Float[jax.Array, "*L D"], num_styles: int
) -> tuple[Float[jax.Array, "1 L D"], Float[jax.Array, "1 R R 3"]]:
    """Where every refinement starts: w_0 = w_avg and y_0 = G(w_avg).

    Args:
      synthesize: `(w_plus [1, L, 512], 0) -> image [1, R, R, 3]`; official code uses the stored
        noise buffers here, also in training.
      w_avg: [512] or [L, 512].
      num_styles: L.

    Returns:
      w_0 [1, L, 512] and y_0 [1, R, R, 3]; the loop broadcasts both over the batch.
    """
    w_0 = jnp.broadcast_to(w_avg, (1, num_styles, w_avg.shape[-1]))
    return w_0, synthesize(w_0, 0)


def refine(
    encode: Encode,
    synthesize: Synthesize,
    inputs: Sequence[Float[jax.Array, "B S1 S2 3"]],
    w_0: Float[jax.Array, "*L D"],
    *,
    image_0: Float[jax.Array, "_ R R 3"] | None = None,
    carry: Any = None,
    gradient: str = "last",
    loop: str = "unroll",
    feedback: bool = True,
    first_iteration: int = 1,
    last_image_only: bool = False,
) -> Refinement:
    """Runs N iterations of w_i = w_{i-1} + E([I_i, y_{i-1}]), y_i = G(w_i) (section 3.1).

    Pure where `encode` and `synthesize` are. y is average-pooled to the encoder's input size
    before it is set beside the image, and not clipped.

    Args:
      encode: `(carry, x [B, S, S, 6 or 3]) -> (delta [B, L, 512], carry)`; the carry is what one
        pass hands to the next, as BatchNorm statistics.
      synthesize: `(w_plus [B, L, 512], i) -> image [B, R, R, 3]`; i is the iteration's number
        (may be traced), for noise that differs between passes.
      inputs: I_1 ... I_N, each [B, S, S, 3] in [-1, 1].
      w_0: [512], [L, 512], or [1 or B, L, 512]; usually w_avg.
      image_0: y_0 = G(w_0), [1 or B, R, R, 3]; computed where it is not given.
      carry: the first carry.
      gradient: "last": everything before iteration N is constant (the released code, and the
        paper's cost argument); "each": every iteration takes the one before as constant (ReStyle,
        whose losses on all iterations are summed); "through": gradients flow through the whole
        loop, each iteration rematerialised.
      loop: "unroll" or "scan". Scan compiles faster and runs slower on CPU.
      feedback: the encoder sees y_{i-1} beside I_i; false for 3-channel encoders (pSp, e4e), which
        run once.
      first_iteration: the number of the first iteration, where a loop is run in parts.
      last_image_only: keep y_N alone; a scanned loop holds the others in memory otherwise.

    Returns:
      A `Refinement`.

    Raises:
      InputError: no inputs, unknown gradient or loop, more than one iteration without feedback, or
        sizes that cannot be pooled.
    """
    if gradient not in GRADIENTS:
        raise InputError(f"gradient: expected one of {GRADIENTS}, got {gradient!r}")
    if loop not in LOOPS:
        raise InputError(f"loop: expected one of {LOOPS}, got {loop!r}")
    count = len(inputs)
    if count == 0:
        raise InputError("num_iterations: expected at least 1, got 0")
    if count > 1 and not feedback:
        raise InputError(f"num_iterations: an encoder without feedback runs once, got {count}")

    batch, height, width, channels = inputs[0].shape
    if w_0.ndim == 1:
        x_spec = jax.ShapeDtypeStruct(
            (batch, height, width, channels * (2 if feedback else 1)), inputs[0].dtype
        )
        w_0 = jnp.broadcast_to(w_0, jax.eval_shape(encode, carry, x_spec)[0].shape[1:])
    if feedback and image_0 is None:
        image_0 = synthesize(w_0 if w_0.ndim == 3 else w_0[None], 0)
    w = jnp.broadcast_to(w_0, (batch, *w_0.shape[-2:]))
    image = None
    if feedback:
        image = jnp.broadcast_to(image_0, (batch, *image_0.shape[1:]))

    def iterate(state, x_i, i):
        carry, w, image = state
        delta, carry = encode(carry, beside_result(x_i, image))
        w = w + delta
        return carry, w, synthesize(w, i)

    if gradient == "through":
        iterate = jax.checkpoint(iterate)
    detach = gradient != "through"

    def step(state, x_i, i):
        state = iterate(jax.lax.stop_gradient(state) if detach else state, x_i, i)
        return state, (state[1], None if last_image_only else state[2])

    def constant(k):
        return gradient == "last" and k < count - 1

    state, early = (carry, w, image), None
    # Under "last" the gradient needs the last pass alone, outside of the scanned ones.
    scanned = count - (gradient == "last") if loop == "scan" and feedback else 0
    if scanned:
        numbers = first_iteration + jnp.arange(scanned)
        state, early = jax.lax.scan(
            lambda state, at: step(state, *at), state, (jnp.stack(inputs[:scanned]), numbers)
        )
    late = []
    for k in range(scanned, count):
        state, result = step(state, inputs[k], first_iteration + k)
        late.append(jax.lax.stop_gradient(result) if constant(k) else result)
    parts = [] if early is None else [jax.lax.stop_gradient(early) if constant(0) else early]
    if late:
        parts.append(jax.tree.map(lambda *xs: jnp.stack(xs), *late))
    w_plus, images = jax.tree.map(lambda *xs: jnp.concatenate(xs) if len(xs) > 1 else xs[0], *parts)
    return Refinement(w_plus, state[2][None] if last_image_only else images, state[0])
