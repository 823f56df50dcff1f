"""The compiled part of the optimiser: some steps of a phase on a batch, each image on its own."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.inversion.distance import l2
from interestyle_jax.inversion.optimisation.latent_statistics import prior_loss
from interestyle_jax.inversion.optimisation.recipes import Phase, Terms
from interestyle_jax.inversion.optimisation.terms import (
    Networks,
    encoded,
    image_losses,
    noise_regularisation,
    normalise_noise,
)
from interestyle_jax.inversion.resize import crop_to_shape
from interestyle_jax.models.stylegan2 import truncate
from interestyle_jax.parallel.sharding import AXES

# PTI's: how far from the pivot the original generator is held, and the truncation of the samples.
LOCALITY_RADIUS, LOCALITY_PSI = 30.0, 0.5


class Rows(NamedTuple):
    """What belongs to each image, rows first.

    Attributes:
      w_plus: [B, L, D], as it is outside of phases that move it.
      noise: the generator's maps by layer, [B, H, W, 1] each.
      params: weights of the synthesis by image, [B, ...] each; None: the generator's own.
      moving: the variables of a phase, "w" [B, 1, D] and others as above.
      adam: its moments, of the same shapes.
      active: [B] bool, false of images that have stopped.
      is_finite: [B] bool, false of images whose loss or gradient was not finite.
    """

    w_plus: jax.Array
    noise: Any
    params: Any
    moving: dict[str, Any]
    adam: Any
    active: jax.Array
    is_finite: jax.Array


class Schedule(NamedTuple):
    """Of some steps, [K] each: their numbers, rates, latent noise, and whether they are done."""

    step: Any
    rate: Any
    latent_noise: Any
    valid: Any


def draw(
    networks: Networks,
    variables: Any,
    w_plus: Float[jax.Array, "B L D"],
    *,
    noise: Any = None,
    params: Any = None,
    how: str = "const",
) -> Float[jax.Array, "B H W 3"]:
    """Images [B, H, W, 3] of latents [B, L, D], with noise maps and weights by image. Pure.

    Args:
      networks: have G.
      variables: its variables under "generator".
      w_plus: latents.
      noise: maps [B, h, w, 1] by layer, or None: the stored ones.
      params: weights [B, ...], or None: the generator's. The mapping's may be left out.
      how: "const" or "none", as in `Generator.synthesize`.
    """
    generator, own = networks.generator, variables["generator"]
    noise = own["noise"] if noise is None else noise

    def synthesize(params, noise, w_plus):
        given = {**own, "params": params, "noise": noise}
        return generator.apply(given, w_plus, how, method="synthesize")

    if params is None:
        images = synthesize(own["params"], noise, w_plus)
    else:

        def draw_one(row):
            params, noise, w_plus = row
            own_params = {**own["params"], **params}
            return synthesize(own_params, *jax.tree.map(lambda x: x[None], (noise, w_plus)))[0]

        batch = len(w_plus)
        noise = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), noise)
        # Not vmapped: grouped convolutions are slow, and some of XLA's let NaN cross their groups.
        images = jax.lax.map(draw_one, (params, noise, w_plus))
    return images if networks.crop is None else crop_to_shape(images, networks.crop)


@functools.partial(jax.jit, static_argnames=("networks", "mesh"))
def draw_rows(
    networks: Networks,
    variables: Any,
    w_plus: Float[jax.Array, "B L D"],
    noise: Any,
    params: Any,
    *,
    mesh: Mesh | None = None,
) -> Float[jax.Array, "B H W 3"]:
    """As `draw`, [B, L, D] -> [B, H, W, 3], each device of the mesh its own rows."""

    def run(variables, w_plus, noise, params):
        return draw(networks, variables, w_plus, noise=noise, params=params)

    if mesh is not None:
        # XLA cannot split a convolution whose kernels are the rows' own.
        own, all_ = PartitionSpec(AXES), PartitionSpec()
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(all_, own, own, own), out_specs=own, check_vma=False
        )
    return run(variables, w_plus, noise, params)


def losses(
    key: PRNGKeyArray,
    networks: Networks,
    phase: Phase,
    variables: Any,
    rows: Rows,
    moving: dict[str, Any],
    targets: tuple[dict[str, Any], ...],
    *,
    latent_noise: Any = 0.0,
) -> tuple[Float[jax.Array, " B"], dict[str, Float[jax.Array, " B"]]]:
    """The loss [B], and its terms [B] before their weights. Pure.

    Args:
      key: one an image, [B], of the step; its first half draws latent noise, the second samples.
      networks, phase: static.
      variables: of the networks, and what the terms need: "w_avg" [D] or [L, D], "mean_image",
        "spread", "whitening".
      rows: what does not move.
      moving: what does.
      targets: of `terms.prepare`.
      latent_noise: in spreads of W.
    """
    terms = phase.terms
    halves = jax.vmap(jax.random.split)(key)
    w_plus = rows.w_plus
    latents = w_plus
    for name in ("w", "w_plus"):
        if name in moving:
            latents = moving[name]
            w_plus = jnp.broadcast_to(latents, rows.w_plus.shape)
    noisy = w_plus
    if phase.latent_noise:
        draws = jax.vmap(lambda k: jax.random.normal(k, latents.shape[1:]))(halves[:, 0])
        noisy = w_plus + variables["spread"] * latent_noise * draws
    noise, params = moving.get("noise", rows.noise), moving.get("generator", rows.params)
    images = draw(networks, variables, noisy, noise=noise, params=params)
    parts: dict[str, Any] = {}
    for target in targets:
        for name, loss in image_losses(networks, variables, terms, target, images).items():
            parts[name] = parts.get(name, 0.0) + loss
    if terms.in_domain:
        found = encoded(networks, variables, images)
        parts["in_domain"] = jnp.mean(jnp.square(w_plus - found), axis=(1, 2))
    if terms.prior:
        parts["prior"] = prior_loss(variables["whitening"], w_plus)
    if terms.noise:
        parts["noise"] = noise_regularisation(noise)
    if terms.locality:
        parts["locality"] = _locality(halves[:, 1], networks, terms, variables, w_plus, params)
    total = sum(getattr(terms, name) * loss for name, loss in parts.items())
    return total, parts


def _locality(key, networks, terms, variables, w_plus, params):
    """How far the tuned generator is from the original one, at a point near the pivot.

    Source: PTI (Roich et al. 2021), its space regulariser, section 3.3, and the official code.
    """
    generator = networks.generator
    z = jax.vmap(lambda k: jax.random.normal(k, (generator.z_dim,)))(key)
    w = generator.apply(variables["generator"], z, method="map")
    w_avg = variables["w_avg"]
    w = truncate(w, w_avg.mean(0) if w_avg.ndim == 2 else w_avg, LOCALITY_PSI)
    away = w[:, None] - w_plus
    norm = jnp.sqrt(jnp.sum(jnp.square(away), axis=(1, 2), keepdims=True))
    near = jax.lax.stop_gradient(w_plus + LOCALITY_RADIUS * away / norm)
    tuned = draw(networks, variables, near, params=params, how="none")
    original = jax.lax.stop_gradient(draw(networks, variables, near, how="none"))
    lpips = getattr(networks, terms.lpips_network)
    own = variables[terms.lpips_network]
    return l2(tuned, original) + lpips.apply(own, tuned, original)


@functools.partial(jax.jit, static_argnames=("networks", "phase", "mesh"), donate_argnames="rows")
def run_steps(
    key: PRNGKeyArray,
    networks: Networks,
    phase: Phase,
    variables: Any,
    rows: Rows,
    targets: tuple[dict[str, Any], ...],
    schedule: Schedule,
    *,
    mesh: Mesh | None = None,
) -> tuple[Rows, dict[str, jax.Array]]:
    """Some steps of a phase; images on several devices do not see each other.

    Args:
      key: one an image, [B].
      networks, phase: static; the phase's numbers of steps and rate are not looked at.
      variables: see `losses`.
      rows: before; not to be used again.
      targets: of `terms.prepare`, rows first.
      schedule: of the steps.
      mesh: devices that share the rows, or None.

    Returns:
      Rows after the steps, and the terms before each of them, {"loss", term: [K, B]}, NaN of
      images that had stopped.
    """
    run = functools.partial(_run, networks=networks, phase=phase)
    if mesh is not None:
        own, all_ = PartitionSpec(AXES), PartitionSpec()
        adam = jax.tree.map(lambda x: all_ if x.ndim == 0 else own, rows.adam)
        placed = Rows(own, own, own, own, adam, own, own)  # type: ignore[arg-type]
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(own, all_, placed, own, all_),
            out_specs=(placed, PartitionSpec(None, AXES)),
            check_vma=False,
        )
    return run(key, variables, rows, targets, schedule)


def _run(key, variables, rows, targets, schedule, *, networks, phase):
    def step(rows, at):
        return _step(key, networks, phase, variables, rows, targets, at)

    # XLA's CPU code runs slower in a loop.
    if len(schedule.step) == 1:
        rows, parts = step(rows, jax.tree.map(lambda x: x[0], schedule))
        return rows, jax.tree.map(lambda x: x[None], parts)
    return jax.lax.scan(step, rows, schedule)


def _step(key, networks, phase, variables, rows, targets, at):
    own = jax.vmap(lambda k: jax.random.fold_in(k, at.step))(key)

    def total(moving):
        loss, parts = losses(
            own, networks, phase, variables, rows, moving, targets, latent_noise=at.latent_noise
        )
        return jnp.sum(loss), (loss, parts)

    gradient, (loss, parts) = jax.grad(total, has_aux=True)(rows.moving)
    finite = jnp.isfinite(loss)
    for leaf in jax.tree.leaves(gradient):
        finite &= jnp.isfinite(leaf).all(tuple(range(1, leaf.ndim)))
    if phase.rows is not None:
        chosen = jnp.isin(jnp.arange(rows.w_plus.shape[1]), jnp.asarray(phase.rows))
        gradient["w_plus"] = gradient["w_plus"] * chosen[:, None]
    adam = optax.scale_by_adam(phase.b1, phase.b2, phase.eps)
    updates, state = adam.update(gradient, rows.adam)
    moved = jax.tree.map(lambda x, update: x - at.rate * update, rows.moving, updates)
    if phase.normalised_noise:
        moved["noise"] = normalise_noise(moved["noise"])
    seen = rows.active & at.valid
    goes_on = seen & finite
    if phase.stop_lpips is not None:
        goes_on &= parts["lpips"] > phase.stop_lpips

    def keep(new, old):
        if new.ndim == 0:
            return new
        return jnp.where(goes_on.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    rows = rows._replace(
        moving=jax.tree.map(keep, moved, rows.moving),
        adam=jax.tree.map(keep, state, rows.adam),
        active=jnp.where(at.valid, goes_on, rows.active),
        is_finite=rows.is_finite & (finite | ~seen),
    )
    told = {"loss": loss, **parts}
    return rows, jax.tree.map(lambda x: jnp.where(seen, x, jnp.nan), told)


def adam_state(moving: dict[str, Any]) -> Any:
    """Of Adam before its first step."""
    return optax.scale_by_adam().init(moving)


def weighs(terms: Terms, network: str) -> bool:
    """Whether a phase's loss looks at images through LPIPS' network "vgg" or "alex"."""
    through_lpips = bool(terms.lpips or terms.locality) and terms.lpips_network == network
    return through_lpips or (network == "vgg" and bool(terms.features))
