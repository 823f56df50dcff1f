"""The optimiser on tiny generators: against plain loops, masks, stops, and what it refuses."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.optimisation.latent_statistics import measure_whitening
from interestyle_jax.inversion.optimisation.optimiser import Optimiser, has_noise
from interestyle_jax.inversion.optimisation.recipes import (
    PRESETS,
    Phase,
    Recipe,
    Terms,
    make_recipe,
)
from interestyle_jax.inversion.optimisation.terms import Target, noise_regularisation
from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.parallel.sharding import make_mesh
from tests.inversion.noisy_generator import noisy_generator

SIZE, STEPS = 8, 10
GENERATOR = Generator(SIZE, w_dim=6, z_dim=6, mapping_depth=2, channel_base=64, channel_max=6)
PROJECTOR = Recipe(
    "projector",
    "",
    (
        Phase(
            ("w", "noise"), STEPS, 0.1, Terms(pixel=1.0, noise=10.0, prior=0.1), ramps=True,
            latent_noise=0.05, fresh_noise=True, normalised_noise=True,
        ),
        Phase(("generator",), STEPS, 3e-3, Terms(pixel=1.0)),
    ),
    mean_samples=50,
    prior_samples=200,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    """A generator whose noise matters."""
    variables = noisy_generator(GENERATOR, np.random.default_rng(0))
    metadata = {"architectures": {"generator": registry.describe(GENERATOR)}}
    return Model(jax.device_put(variables), metadata, "tiny")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def found(model, images):
    return Optimiser(model, PROJECTOR)(jax.random.key(5), [Target(jnp.asarray(images))])


class Adam:
    """Kingma and Ba's algorithm 1, on a list of NumPy arrays in float64."""

    def __init__(self, values, b1=0.9, b2=0.999, eps=1e-8):
        self.m = [np.zeros(np.shape(v)) for v in values]
        self.v = [np.zeros(np.shape(v)) for v in values]
        self.b1, self.b2, self.eps, self.t = b1, b2, eps, 0

    def __call__(self, values, gradients, rate):
        self.t += 1
        moved = []
        for i, (value, g) in enumerate(zip(values, gradients, strict=True)):
            g = np.asarray(g, np.float64)
            self.m[i] = self.b1 * self.m[i] + (1 - self.b1) * g
            self.v[i] = self.b2 * self.v[i] + (1 - self.b2) * g**2
            m = self.m[i] / (1 - self.b1**self.t)
            v = self.v[i] / (1 - self.b2**self.t)
            moved.append((value - rate * m / (np.sqrt(v) + self.eps)).astype(np.float32))
        return moved


def ramped(step, count, rate):
    """The projector's learning rate."""
    t = step / count
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
    return rate * down * min(1.0, t / 0.05)


def plain_projector(model, image, key):
    """PROJECTOR on one image, as the projector is published: losses, w, noise, tuned weights."""
    generator, own = GENERATOR, model.variables["generator"]
    z = np.random.RandomState(123).randn(50, 6).astype(np.float32)
    samples = np.asarray(generator.apply(own, z, method="map"), np.float64)
    w = samples.mean(0)[None].astype(np.float32)
    spread = math.sqrt(((samples - samples.mean(0)) ** 2).sum() / 50)
    z = np.random.RandomState(123).randn(200, 6).astype(np.float32)
    bent = np.asarray(generator.apply(own, z, method="map"), np.float64)
    bent = np.where(bent < 0, 5 * bent, bent)
    _, deviations, directions = np.linalg.svd(bent - bent.mean(0), full_matrices=False)
    deviations = deviations / math.sqrt(200)
    maps = flatten_dict(own["noise"])
    noise_key, step_key = jax.random.split(jax.random.fold_in(key, 0))
    keys = jax.random.split(noise_key, len(maps))
    names = sorted(maps)
    noise = [
        np.asarray(jax.random.normal(k, maps[n].shape[1:]))
        for k, n in zip(keys, names, strict=True)
    ]

    def drawn(w, noise, params):
        given = {n: m[None] for n, m in zip(names, noise, strict=True)}
        variables = {"params": params, "noise": unflatten_dict(given)}
        rows = jnp.broadcast_to(w, (1, 4, 6))
        return generator.apply(variables, rows, "const", method="synthesize")[0]

    @jax.jit
    @jax.value_and_grad
    def project(moving, added):
        w, noise = moving
        loss = jnp.mean((drawn(w + added, noise, own["params"]) - image) ** 2)
        for m in noise:
            # Maps up to 8 pixels have no smaller one.
            loss += 10 * (
                jnp.mean(m * jnp.roll(m, 1, 0)) ** 2 + jnp.mean(m * jnp.roll(m, 1, 1)) ** 2
            )
        p = (jnp.where(w < 0, 5 * w, w) - bent.mean(0)) @ directions.T / deviations
        return loss + 0.1 * jnp.mean(p**2)

    adam, losses = Adam([w, *noise]), []
    for step in range(STEPS):
        first, _ = jax.random.split(jax.random.fold_in(step_key, step))
        factor = spread * 0.05 * max(0.0, 1 - step / STEPS / 0.75) ** 2
        added = factor * jax.random.normal(first, (1, 6))
        loss, (gw, gn) = project((w, noise), added)
        losses.append(float(loss))
        w, *noise = adam([w, *noise], [gw, *gn], ramped(step, STEPS, 0.1))
        noise = [m - m.mean() for m in noise]
        noise = [m / math.sqrt((m**2).mean()) for m in noise]

    flat = {k: v for k, v in flatten_dict(own["params"]).items() if k[0] != "mapping"}
    values = list(flat.values())

    @jax.jit
    @jax.value_and_grad
    def tune(values):
        params = unflatten_dict(dict(zip(flat, values, strict=True)))
        params["mapping"] = own["params"]["mapping"]
        return jnp.mean((drawn(w, noise, params) - image) ** 2)

    adam = Adam(values)
    for _ in range(STEPS):
        loss, gradients = tune(values)
        losses.append(float(loss))
        values = adam(values, gradients, 3e-3)
    return losses, w, dict(zip(names, noise, strict=True)), dict(zip(flat, values, strict=True))


def test_a_projector_and_a_tuning_equal_plain_loops(model, images, found):
    key = jax.random.fold_in(jax.random.key(5), 1)
    losses, w, noise, params = plain_projector(model, images[1], key)
    np.testing.assert_allclose(found.trace["loss"][:, 1], losses, rtol=1e-4)
    assert losses[-1] < losses[STEPS]
    np.testing.assert_allclose(found.w_plus[1], np.broadcast_to(w, (4, 6)), atol=1e-4)
    for tree, expected in ((found.noise, noise), (found.params, params)):
        for path, array in flatten_dict(tree).items():
            np.testing.assert_allclose(array[1], expected[path], atol=1e-4, err_msg=str(path))
    # Of the two images' own weights: they differ.
    assert float(jnp.abs(found.params["input"][0] - found.params["input"][1]).max()) > 1e-3
    assert found.phases.tolist() == [0] * STEPS + [1] * STEPS and found.is_finite.all()


def test_devices_and_batches_change_nothing(model, images, found):
    mesh = make_mesh(devices=jax.devices()[:2])
    spread = dataclasses.replace(model, mesh=mesh)
    both = Optimiser(spread, PROJECTOR)(
        jax.random.key(5), [Target(jnp.asarray(images[::-1]))], numbers=[1, 0]
    )
    np.testing.assert_allclose(both.w_plus[::-1], found.w_plus, atol=1e-5)
    np.testing.assert_allclose(both.images[::-1], found.images, atol=1e-4)


def test_an_image_that_is_not_finite_stops_alone(model, images, found):
    broken = images.copy()
    broken[0, 0, 0] = np.nan
    both = Optimiser(model, PROJECTOR)(jax.random.key(5), [Target(jnp.asarray(broken))])
    assert both.is_finite.tolist() == [False, True]
    assert both.num_steps.tolist() == [0, 2 * STEPS]
    np.testing.assert_array_equal(both.w_plus[1], found.w_plus[1])
    assert np.isfinite(both.w_plus[0]).all()


def test_masks_hide_and_rows_stay(model, images):
    recipe = Recipe("rows", "", (Phase(("w_plus",), 4, 0.05, Terms(pixel=1.0), rows=(1,)),))
    optimise = Optimiser(model, recipe)
    mask = np.zeros((2, SIZE, SIZE, 1), np.float32)
    mask[:, :4] = 1
    other = np.where(mask > 0, images, -images)
    targets = [Target(jnp.asarray(x), {"all": jnp.asarray(mask)}) for x in (images, other)]
    seen, hidden = (optimise(jax.random.key(0), [target]) for target in targets)
    np.testing.assert_array_equal(seen.w_plus, hidden.w_plus)
    start = np.broadcast_to(model.w_avg, seen.w_plus.shape)
    changed = np.abs(seen.w_plus - start).max((0, 2)) > 0
    assert changed.tolist() == [False, True, False, False]
    # A crossover: what one mask leaves out, the other one shows.
    rest = Target(jnp.asarray(other), {"pixel": jnp.asarray(1 - mask)})
    crossed = optimise(jax.random.key(0), [targets[0], rest])
    both = np.mean((np.asarray(images) * mask - np.asarray(crossed.images) * mask) ** 2)
    assert np.isfinite(both)
    whole = np.where(mask > 0, images, other)
    alone = optimise(jax.random.key(0), [Target(jnp.asarray(whole))])
    np.testing.assert_allclose(crossed.trace["loss"], alone.trace["loss"], rtol=1e-5)
    with pytest.raises(InputError, match="empty"):
        optimise(jax.random.key(0), [Target(jnp.asarray(images), {"all": jnp.asarray(mask * 0)})])
    with pytest.raises(InputError, match="start"):
        optimise(jax.random.key(0), targets[:1], start=np.zeros((2, 3, 6)))


def test_noise_regularisation_sees_the_whole_pyramid():
    noise = np.random.default_rng(2).normal(size=(2, 16, 16, 1))
    expected = np.zeros(2)
    for b, map_ in enumerate(noise[..., 0]):
        half = map_.reshape(8, 2, 8, 2).mean((1, 3))
        for m in (map_, half):
            expected[b] += (m * np.roll(m, 1, 0)).mean() ** 2 + (m * np.roll(m, 1, 1)).mean() ** 2
    found = noise_regularisation({"a": jnp.asarray(noise, jnp.float32)})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_whitening_whitens(model):
    whitening = measure_whitening(model, 500)
    z = np.random.RandomState(123).randn(500, 6).astype(np.float32)
    w = np.asarray(model.map(z), np.float64)
    x = np.where(w < 0, 5 * w, w) - np.asarray(whitening.mean)
    p = x @ np.asarray(whitening.directions, np.float64).T / np.asarray(whitening.deviations)
    np.testing.assert_allclose(p.T @ p / 500, np.eye(6), atol=1e-3)


def test_what_recipes_refuse(model):
    with pytest.raises(InputError, match="--method: 'pt', expected one of projector-w, "):
        make_recipe("pt")
    with pytest.raises(InputError, match="--rows"):
        make_recipe("projector-w", rows=(1,))
    with pytest.raises(InputError, match="learning_rate"):
        make_recipe("ii2s", learning_rate=0.0)
    with pytest.raises(InputError, match="lpips_vgg.*interestyle convert"):
        Optimiser(model, make_recipe("ii2s"))
    with pytest.raises(InputError, match="no encoder"):
        Optimiser(model, make_recipe("hybrid"))
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 0 if path[-1].key == "noise_strength" else x, model.variables
    )
    silent = dataclasses.replace(model, variables=variables)
    with pytest.raises(InputError, match="no noise to optimise.*--no-noise"):
        Optimiser(silent, PROJECTOR)
    assert has_noise(model) and not has_noise(silent)


def test_presets_have_their_sources_numbers():
    numbers = {
        name: [(p.variables, p.num_steps, p.learning_rate) for p in recipe.phases]
        for name, recipe in PRESETS.items()
    }
    assert numbers == {
        "projector-w": [(("w", "noise"), 1000, 0.1)],
        "projector-w-plus": [(("w_plus", "noise"), 1000, 0.1)],
        "image2stylegan": [(("w_plus",), 5000, 0.01)],
        "image2stylegan-plus-plus": [(("w_plus",), 5000, 0.01), (("noise",), 3000, 5.0)],
        "idinvert": [(("w_plus",), 100, 0.01)],
        "ii2s": [(("w_plus",), 1300, 0.01)],
        "pti": [(("w", "noise"), 450, 0.01), (("generator",), 350, 3e-4)],
        "hybrid": [(("w_plus",), 100, 0.01)],
    }
    assert all(recipe.source for recipe in PRESETS.values())
    shorter = make_recipe("pti", num_steps=45)
    assert [phase.num_steps for phase in shorter.phases] == [45, 35]
    tuning = make_recipe("pti", start="latents", locality=False)
    assert [p.variables for p in tuning.phases] == [("generator",)]
    assert tuning.phases[0].terms.locality == 0 and tuning.phases[0].stop_lpips == 0.06


def test_recipes_without_noise_let_the_maps_be():
    for name, preset in PRESETS.items():
        recipe = make_recipe(name, noise=False)
        assert not recipe.keeps_noise and not recipe.uses("noise")
        own = [phase for phase in preset.phases if phase.variables != ("noise",)]
        assert len(recipe.phases) == len(own)
        for phase, before in zip(recipe.phases, own, strict=True):
            assert set(before.variables) - set(phase.variables) <= {"noise"}
            assert not (phase.fresh_noise or phase.normalised_noise)
            assert phase.latent_noise == before.latent_noise
