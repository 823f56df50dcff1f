"""Every preset's steps against plain PyTorch loops, written from what its source publishes."""

import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
import torch

from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.optimisation import schedule
from interestyle_jax.inversion.optimisation.optimiser import Optimiser
from interestyle_jax.inversion.optimisation.recipes import PRESETS, Terms, make_recipe
from interestyle_jax.inversion.optimisation.terms import Networks, Target, image_losses, prepare
from interestyle_jax.models import registry
from interestyle_jax.models.encoders import BackboneEncoder
from interestyle_jax.models.lpips import LPIPS
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights, resolve_weights, save_weights
from tests.inversion.noisy_generator import noisy_generator
from tests.inversion.torch_networks import (
    lpips,
    map_z,
    synthesize,
    to_nchw,
    to_torch,
    vgg_features,
)

STEPS = 10
# The image's number, which its draws depend on.
NUMBER = 3
# Of W, for II2S: the source has a million.
PRIOR_SAMPLES = 20_000
# What comes before VGG16's grey levels in Keras, squared: features of torchvision's are smaller.
KERAS = 57.4**2


def random_model(resolution, with_encoder=False):
    """A generator whose noise matters, and an encoder."""
    module = Generator(resolution, 32, 32, mapping_depth=2, channel_base=1024, channel_max=16)
    random = np.random.default_rng(0)
    variables = noisy_generator(module, random)
    parts = {"generator": module}
    if with_encoder:
        parts["encoder"] = encoder = BackboneEncoder(
            module.num_styles, 6, resolution, (1, 1), (4, 4, 8), 8, 32
        )

        def draw(path, spec):
            if path[-1] in ("scale", "var"):
                return np.ones(spec.shape, np.float32)
            spread = 0.1 if len(spec.shape) < 2 else 1 / math.sqrt(math.prod(spec.shape[:-1]))
            # Scaled in the network.
            spread = 1.0 if path[-1] == "dense_kernel" else spread
            return random.normal(0, spread, spec.shape).astype(np.float32)

        shapes = flatten_dict(registry.shapes_of(encoder))
        variables["encoder"] = unflatten_dict({p: draw(p, s) for p, s in shapes.items()})
    metadata = {"architectures": {name: registry.describe(m) for name, m in parts.items()}}
    return Model(jax.device_put(variables), metadata, "random")


@pytest.fixture(scope="module")
def random_vgg():
    """Variables of LPIPS on a VGG16 of random numbers."""
    random = np.random.default_rng(2)
    flat = flatten_dict(registry.shapes_of(LPIPS("vgg")))

    def draw(path, shape):
        if path[-1] == "kernel":
            return random.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape)
        return random.uniform(0, 1 if "head" in path[-1] else 0.1, shape)

    flat = {path: draw(path, spec.shape).astype(np.float32) for path, spec in flat.items()}
    return unflatten_dict(flat)


@pytest.fixture(scope="module")
def vgg(random_vgg, tmp_path_factory):
    """A weight directory of it, and its parameters as tensors."""
    folder = tmp_path_factory.mktemp("vgg") / "weights"
    architectures = {"lpips": registry.describe(LPIPS("vgg"))}
    options = {"family": "lpips_vgg", "architectures": architectures, "licence": "none"}
    save_weights(folder, {"lpips": random_vgg}, **options)
    return folder, to_torch(random_vgg["params"])


def networks(model, vgg):
    """All of a reference's networks, as tensors."""
    own = jax.device_get(model.variables["generator"])
    alex = load_weights(resolve_weights("lpips_alex")).variables["lpips"]["params"]
    return SimpleNamespace(
        model=model,
        params=to_torch(own["params"]),
        noise={n: to_torch(own["noise"][n]["noise"])[0, :, :, 0] for n in own["noise"]},
        w_avg=to_torch(np.broadcast_to(model.w_avg, model.latents_shape)),
        vgg=vgg[1],
        alex=to_torch(alex),
        trace=[],
        lpips=[],
    )


def free(tensor):
    return tensor.detach().clone().requires_grad_()


def normal(key, shape):
    return to_torch(jax.random.normal(key, shape))


def regularisation(noise):
    """Karras et al. 2020, appendix D."""
    total = 0.0
    for map_ in noise.values():
        while True:
            for axis in (0, 1):
                total = total + (map_ * torch.roll(map_, 1, axis)).mean() ** 2
            size = len(map_)
            if size <= 8:
                break
            map_ = map_.reshape(size // 2, 2, size // 2, 2).mean((1, 3))
    return total


def projector(net, image, key, *, of=STEPS, rate=0.1, samples=10_000, wide=False):
    """stylegan2-ada's first steps `of` so many, for one w or (PTI's) one a row."""
    rows = len(net.w_avg)
    z = np.random.RandomState(123).randn(
        samples, net.params["mapping"]["dense_0"]["kernel"].shape[0]
    )
    ws = map_z(net.params, to_torch(z.astype(np.float32)))
    spread = torch.sqrt(((ws - ws.mean(0)) ** 2).sum() / samples)
    w = free(ws.mean(0)[None].expand(rows if wide else 1, -1))
    draws, at_steps = jax.random.split(jax.random.fold_in(key, 0))
    keys = jax.random.split(draws, len(net.noise))
    noise = {
        name: free(normal(k, (*net.noise[name].shape, 1))[..., 0])
        for name, k in zip(sorted(net.noise), keys, strict=True)
    }
    adam = torch.optim.Adam([w, *noise.values()], betas=(0.9, 0.999))
    for step in range(STEPS):
        t = step / of
        ramp = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
        adam.param_groups[0]["lr"] = rate * ramp * min(1.0, t / 0.05)
        scale = spread * 0.05 * max(0.0, 1 - t / 0.75) ** 2
        first, _ = jax.random.split(jax.random.fold_in(at_steps, step))
        noisy = w + scale * normal(first, w.shape)
        drawn = synthesize(net.params, noise, noisy.expand(rows, -1)[None])
        distance = lpips(net.vgg, drawn, image)
        loss = distance + 1e5 * regularisation(noise)
        net.trace.append(loss.item())
        net.lpips.append(distance.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for map_ in noise.values():
                map_ -= map_.mean()
                map_ /= torch.sqrt((map_**2).mean())
    return w.detach().expand(rows, -1), {name: map_.detach() for name, map_ in noise.items()}


def minimise(net, variables, loss, *, rate, steps):
    """Adam with a constant rate."""
    adam = torch.optim.Adam(variables, lr=rate, betas=(0.9, 0.999), eps=1e-8)
    for step in range(steps):
        value = loss(step)
        net.trace.append(value.item())
        adam.zero_grad()
        value.backward()
        adam.step()


def mse(a, b):
    return ((a - b) ** 2).mean()


def feature_loss(net, a, b, names):
    a, b = vgg_features(net.vgg, a), vgg_features(net.vgg, b)
    return sum(mse(a[name], b[name]) for name in names)


def image2stylegan(net, image, key):
    """Abdal et al. 2019, equation 1."""
    del key
    w_plus = free(net.w_avg)

    def loss(step):
        drawn = synthesize(net.params, net.noise, w_plus[None])
        names = ("conv1_1", "conv1_2", "conv3_2", "conv4_2")
        return mse(drawn, image) + feature_loss(net, drawn, image, names)

    minimise(net, [w_plus], loss, rate=0.01, steps=STEPS)
    return {"w_plus": w_plus}


def image2stylegan_plus_plus(net, image, key):
    """Abdal et al. 2020: a W+ block, then a noise block of 3000 steps for its 5000."""
    del key
    w_plus, noise = free(net.w_avg), {name: free(x) for name, x in net.noise.items()}

    def of_latent(step):
        drawn = synthesize(net.params, net.noise, w_plus[None])
        names = ("conv1_1", "conv1_2", "conv2_2", "conv3_3")
        return 1e-5 * mse(drawn, image) + 1e-5 * feature_loss(net, drawn, image, names)

    def of_noise(step):
        return 1e-5 * mse(synthesize(net.params, noise, w_plus.detach()[None]), image)

    minimise(net, [w_plus], of_latent, rate=0.01, steps=STEPS)
    minimise(net, list(noise.values()), of_noise, rate=5, steps=6 * STEPS // 10)
    return {"w_plus": w_plus, "noise": noise}


def ii2s(net, image, key):
    """Zhu et al. 2020: LPIPS, MSE, and P_N, the whitened latent behind a leaky ReLU of slope 5."""
    del key
    z = np.random.RandomState(123).randn(PRIOR_SAMPLES, net.w_avg.shape[1]).astype(np.float32)
    ws = map_z(net.params, to_torch(z))
    bent = torch.nn.functional.leaky_relu(ws, 5.0)
    _, deviations, directions = torch.linalg.svd(bent - bent.mean(0), full_matrices=False)
    deviations = deviations / math.sqrt(PRIOR_SAMPLES)
    w_plus = free(net.w_avg)

    def loss(step):
        drawn = synthesize(net.params, net.noise, w_plus[None])
        p = torch.nn.functional.leaky_relu(w_plus, 5.0) - bent.mean(0)
        p = p @ directions.T / deviations
        return mse(drawn, image) + lpips(net.vgg, drawn, image) + 0.001 * (p**2).mean()

    minimise(net, [w_plus], loss, rate=0.01, steps=STEPS)
    return {"w_plus": w_plus}


def pti(net, image, key):
    """Roich et al. 2021: a pivot in W, then the synthesis tuned, held where it was near by."""
    pivot, _ = projector(net, image, key, rate=0.01, samples=600)
    params = {name: own for name, own in net.params.items() if name != "mapping"}
    params = jax.tree.map(free, params)
    _, at_steps = jax.random.split(jax.random.fold_in(key, 1))

    def loss(step):
        drawn = synthesize(params, net.noise, pivot[None])
        distance = lpips(net.alex, drawn, image)
        assert distance > 0.06
        _, second = jax.random.split(jax.random.fold_in(at_steps, step))
        z = normal(second, (1, net.w_avg.shape[1]))
        w = net.w_avg + 0.5 * (map_z(net.params, z) - net.w_avg)
        near = pivot + 30 * (w - pivot) / torch.sqrt(((w - pivot) ** 2).sum())
        tuned, frozen = (synthesize(p, None, near[None]) for p in (params, net.params))
        locality = mse(tuned, frozen) + lpips(net.alex, tuned, frozen)
        return mse(drawn, image) + distance + 0.1 * locality

    leaves = jax.tree.leaves(params)
    minimise(net, leaves, loss, rate=3e-4, steps=round(350 / 450 * STEPS))
    return {"w_plus": pivot, "params": params}


def encode(net, inputs):
    """The encoder's change [L, D] of inputs [1, 6, H, W], with a gradient."""
    model = net.model

    def run(x):
        return model.network("encoder").apply(model.variables["encoder"], x, train=False)[0]

    class Encode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            rows = jnp.asarray(x.permute(0, 2, 3, 1).numpy(), jnp.float32)
            found, ctx.pull = net.vjp(rows)
            return to_torch(found)

        @staticmethod
        def backward(ctx, gradient):
            (own,) = ctx.pull(jnp.asarray(gradient.numpy(), jnp.float32))
            return to_nchw(own)

    if not hasattr(net, "vjp"):
        net.vjp = jax.jit(lambda x: jax.vjp(run, x))
    return Encode.apply(inputs)


def encoded_start(net, image):
    """Five iterations of the encoder, each sees the image and what was drawn before."""
    with torch.no_grad():
        w_plus = net.w_avg
        for _ in range(5):
            drawn = synthesize(net.params, net.noise, w_plus[None])
            w_plus = w_plus + encode(net, torch.cat([image, drawn], 1))
    return free(w_plus)


def idinvert(net, image, key):
    """Zhu et al. 2020, section 3.3: pixels, conv4_3, and the encoder's latent of what is drawn."""
    del key
    w_plus = encoded_start(net, image)
    mean = synthesize(net.params, net.noise, net.w_avg[None])

    def loss(step):
        drawn = synthesize(net.params, net.noise, w_plus[None])
        again = net.w_avg + encode(net, torch.cat([drawn, mean], 1))
        features = 5e-5 * KERAS * feature_loss(net, drawn, image, ["conv4_3"])
        return mse(drawn, image) + features + 2 * mse(w_plus, again)

    minimise(net, [w_plus], loss, rate=0.01, steps=STEPS)
    return {"w_plus": w_plus}


def hybrid(net, image, key):
    """No source has it: IntereStyle's losses from its encoder's latent on."""
    del key
    w_plus = encoded_start(net, image)

    def loss(step):
        drawn = synthesize(net.params, net.noise, w_plus[None])
        return mse(drawn, image) + 0.8 * lpips(net.alex, drawn, image)

    minimise(net, [w_plus], loss, rate=0.01, steps=STEPS)
    return {"w_plus": w_plus}


def projected(net, image, key, **options):
    w_plus, noise = projector(net, image, key, of=1000, **options)
    return {"w_plus": w_plus, "noise": noise}


REFERENCES = {
    "projector-w": projected,
    "projector-w-plus": lambda *args: projected(*args, wide=True),
    "image2stylegan": image2stylegan,
    "image2stylegan-plus-plus": image2stylegan_plus_plus,
    "idinvert": idinvert,
    "ii2s": ii2s,
    "pti": pti,
    "hybrid": hybrid,
}


def compare(preset, model, vgg, *, key=11):
    """Ten steps of a preset on one image, by the optimiser and by its reference."""
    size = model.resolution
    image = np.random.default_rng(1).uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
    recipe = make_recipe(preset, num_steps=STEPS)
    recipe = dataclasses.replace(recipe, prior_samples=PRIOR_SAMPLES)
    optimise = Optimiser(model, recipe, lpips=["lpips_alex", vgg[0]])
    found = optimise(jax.random.key(key), [Target(jnp.asarray(image))], numbers=[NUMBER])
    net = networks(model, vgg)
    own = jax.random.fold_in(jax.random.key(key), NUMBER)
    expected = REFERENCES[preset](net, to_nchw(image), own)
    np.testing.assert_allclose(found.trace["loss"][:, 0], net.trace, rtol=1e-4)
    # The noise term is a thousand times larger than a projector's LPIPS.
    if net.lpips:
        np.testing.assert_allclose(found.trace["lpips"][:STEPS, 0], net.lpips, rtol=1e-4)
    assert net.trace[STEPS - 1] != pytest.approx(net.trace[0], rel=1e-3)
    away = np.abs(np.asarray(found.w_plus[0]) - expected["w_plus"].detach().numpy())
    if preset == "idinvert":
        # The encoder is in float32 on both sides: where pixels and the in-domain term cancel each
        # other, Adam makes a step of what is left. 0.1 is the way that a latent can go.
        assert np.mean(away > 1e-4) < 0.05 and away.max() < 2e-3
    else:
        np.testing.assert_array_less(away, 1e-4)
    for name, map_ in expected.get("noise", {}).items():
        own, map_ = np.asarray(found.noise[name]["noise"])[0, :, :, 0], map_.detach().numpy()
        np.testing.assert_allclose(own, map_, atol=1e-4 * max(1, np.abs(map_).max()))
    assert (found.noise is None) == ("noise" not in expected)
    assert (found.params is None) == ("params" not in expected)
    for path, tensor in flatten_dict(expected.get("params", {})).items():
        own = flatten_dict(found.params)[path][0]
        np.testing.assert_allclose(own, tensor.detach(), atol=1e-4, err_msg=str(path))


def test_every_preset_has_a_reference():
    assert REFERENCES.keys() == PRESETS.keys()


def test_image_terms_are_their_definitions(random_vgg):
    names = ("conv1_1", "conv2_2", "conv3_2")
    terms = Terms(pixel=1.0, features=1.0, feature_layers=names)
    modules, variables = Networks(None, vgg=LPIPS("vgg")), {"vgg": random_vgg}
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 2, 16, 16, 3)).astype(np.float32)
    mask = np.zeros((2, 16, 16, 1), np.float32)
    mask[:, 3:11, 2:] = 1

    @jax.jit
    def losses(variables, a, target):
        prepared = prepare(modules, variables, terms, target)
        return image_losses(modules, variables, terms, prepared, a)

    found = losses(variables, a, Target(b, {"all": mask}))
    net = SimpleNamespace(vgg=to_torch(random_vgg["params"]))
    for i in range(2):
        x, y = (to_nchw(images[i : i + 1] * mask[i]) for images in (a, b))
        expected = {"pixel": mse(x, y), "features": feature_loss(net, x, y, names)}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][i], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("preset", REFERENCES)
def test_a_presets_steps_are_its_sources(preset, vgg, monkeypatch):
    if preset.startswith("projector"):
        # The first of a thousand: ten that hold the whole schedule jump too far for float32.
        for name in ("learning_rates", "latent_noise"):
            whole = getattr(schedule, name)
            first = lambda steps, whole=whole, **options: whole(1000, **options)[:steps]  # noqa: E731
            monkeypatch.setattr(schedule, name, first)
    model = random_model(64, with_encoder=preset in ("idinvert", "hybrid"))
    compare(preset, model, vgg)
