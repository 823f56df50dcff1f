"""One training step of the released IntereStyle coach at 256, against the official code's numbers.

All weights come from the golden data's rule, so every network of the step is the official one at
full size: encoder, generator, LPIPS and the identity network.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.inversion.refinement import refine, start_from
from interestyle_jax.models.encoders import BackboneEncoder
from interestyle_jax.models.ir_se import IRTrunk
from interestyle_jax.models.lpips import LPIPS
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.training.encoder_gradients import EncoderLoss, Position
from interestyle_jax.training.losses import ImageLoss

TESTS = Path(__file__).resolve().parents[1]
STYLES = 14
POSITIONS = (0, 3, 6, 8, 10)


def load_module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


encoders = load_module(TESTS / "models/test_encoders.py")
stylegan2 = load_module(TESTS / "models/test_stylegan2_parity.py")


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def average_windows(size, target):
    """Matrix [target, size] of `AdaptiveAvgPool1d`: windows of two or three, overlapping."""
    matrix = np.zeros((target, size), np.float32)
    for i in range(target):
        first, last = size * i // target, -(-size * (i + 1) // target)
        matrix[i, first:last] = 1 / (last - first)
    return jnp.asarray(matrix)


def identity_network(p):
    """ArcFace as the coach uses it: crop, pool to 112, IR-SE50, unit vector [B, 512]."""
    variables = {"params": {}, "batch_stats": {}}
    for key, value in p.items():
        if key.startswith("output_layer") or key.endswith("num_batches_tracked"):
            continue
        collection, path = encoders.flax_path(key)
        node = variables[collection]
        for part in path[:-1]:
            node = node.setdefault(part, {})
        if path[-1] == "kernel":
            dense = path[-2] in ("reduce", "expand")
            value = value[:, :, 0, 0].T if dense else value.transpose(2, 3, 1, 0)
        node[path[-1]] = value

    def normalise(x, p, prefix):
        scale = p[prefix + ".weight"] / jnp.sqrt(p[prefix + ".running_var"] + 1e-5)
        return (x - p[prefix + ".running_mean"]) * scale + p[prefix + ".bias"]

    pool = average_windows(188, 112)

    @jax.jit
    def embed(variables, p, x):
        x = jnp.einsum("bhwc,ih,jw->bijc", x[:, 35:223, 32:220], pool, pool)
        x = normalise(IRTrunk().apply(variables, x)[-1], p, "output_layer.0")
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        x = x @ p["output_layer.3.weight"].T + p["output_layer.3.bias"]
        x = normalise(x, p, "output_layer.4")
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    head = {k: jnp.asarray(v) for k, v in p.items() if k.startswith("output_layer")}
    return lambda x: embed(variables, head, x)


@pytest.fixture(scope="module")
def official(golden_dir):
    """The networks, pictures and numbers of the step; each network is compiled once."""
    fill = load_module(golden_dir / "goldenfill.py")

    def tensors(family, section):
        manifest = json.loads((golden_dir / "manifests" / f"{family}.json").read_text())
        entries = manifest["sections"][section]
        keys = {key for key, _, _ in entries}
        return {
            key: fill.fill(key, shape, keys, dtype)
            for key, shape, dtype in entries
            if not key.startswith("classifier")
        }

    state_dict = tensors("interestyle_256_test", "state_dict")
    encoder = BackboneEncoder(num_styles=STYLES)
    variables = encoders.official_variables(state_dict, STYLES)
    decoder = {
        key.removeprefix("decoder."): value
        for key, value in state_dict.items()
        if key.startswith("decoder.")
    }
    generator_variables = stylegan2.generator_variables(decoder, 256)
    alexnet, heads = tensors("lpips_alex", "alexnet"), tensors("lpips_alex", "lin")
    lpips_variables = {
        "params": {
            f"conv_{i}": {
                "kernel": alexnet[f"features.{k}.weight"].transpose(2, 3, 1, 0),
                "bias": alexnet[f"features.{k}.bias"],
            }
            for i, k in enumerate(POSITIONS)
        }
        | {f"head_{i}": heads[f"lin{i}.model.1.weight"].reshape(-1) for i in range(5)}
    }

    @jax.jit
    def encode(params, stats, x):
        delta, new = encoder.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return delta, new["batch_stats"]

    # Weights are arguments: as constants of a program they would be folded, slowly.
    @jax.jit
    def synthesize(variables, w_plus):
        return Generator(256).apply(variables, w_plus, "const", method="synthesize")

    generator_variables = jax.tree.map(jnp.asarray, generator_variables)

    def draw(w_plus):
        return synthesize(generator_variables, w_plus)

    distance = jax.jit(LPIPS("alex").apply)

    golden = np.load(golden_dir / "public/train_step_256.npz")
    recipes = json.loads(str(golden["recipe_json"]))
    pictures = [
        nhwc(getattr(fill, r["call"])(r["name"], *r["args"], **r["kwargs"])) for r in recipes
    ]
    *images, mask = pictures
    w_avg = tensors("interestyle_256_test", "latent_avg")["latent_avg"]
    w_0, image_0 = start_from(lambda w, i: draw(w), jnp.asarray(w_avg), STYLES)
    return {
        "golden": golden,
        "encode_with": lambda params: lambda stats, x: encode(params, stats, x),
        "synthesize": lambda w_plus, i: draw(w_plus),
        "params": jax.tree.map(jnp.asarray, variables["params"]),
        "start": Position(
            variables["batch_stats"],
            jnp.broadcast_to(w_0, (2, *w_0.shape[1:])),
            jnp.broadcast_to(image_0, (2, *image_0.shape[1:])),
        ),
        # The first recipe is the target; the others are the inputs of iterations 1 to 4.
        "inputs": (*images[1:], images[0]),
        "image": images[0],
        "mask": mask[..., :1],
        "loss": ImageLoss(
            {"l2": 1.0, "lpips": 0.8, "id": 0.1},
            lambda a, b: distance(lpips_variables, a, b),
            identity_network(tensors("arcface_ir_se50", "state_dict")),
        ),
    }


def module_norms(grads, names):
    """Norm of the gradient of each official module, whose style heads are columns here."""
    norms = []
    for name in names:
        if name.startswith("styles."):
            i = int(name.split(".")[1])
            parts = [a[..., 512 * i : 512 * i + 512] for a in grads["heads"].values()]
        elif name == "input_layer":
            parts = [v for k, v in grads["trunk"].items() if k.startswith("stem")]
        else:
            parts = grads["trunk"][f"block_{name.split('.')[1]}"]
        norms.append(np.sqrt(sum(float(jnp.vdot(a, a)) for a in jax.tree.leaves(parts))))
    return np.asarray(norms)


def run(official, gradient):
    loss = EncoderLoss(
        official["encode_with"], official["synthesize"], official["loss"], gradient=gradient
    )
    return loss.gradients(
        official["params"],
        official["start"],
        official["inputs"],
        official["image"],
        official["mask"],
    )


def relative(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.slow
def test_last_is_the_released_step(official):
    golden = official["golden"]
    grads, stats, metrics = run(official, "last")
    columns = list(golden["losses_columns"])
    want = dict(zip(columns, golden["losses_per_iter_f64"][-1], strict=True))
    found = {
        "total": relative(metrics["loss"], want["total"]),
        **{name: relative(metrics[name], want[name]) for name in ("l2", "lpips", "id")},
    }
    for key in golden.files:
        if key.startswith("bn/") and not key.endswith("num_batches_tracked"):
            collection, path = encoders.flax_path(key.removeprefix("bn/"))
            assert collection == "batch_stats"
            value = stats["trunk"]
            for part in path:
                value = value[part]
            found[key] = relative(value, golden[key])
    print({k: f"{v:.1e}" for k, v in found.items()})
    assert max(found.values()) < 5e-5

    norms = module_norms(grads, golden["grad_norm_modules"])
    first = grads["trunk"]["stem_conv"]["kernel"].transpose(3, 2, 0, 1)
    found = {
        "modules": np.abs(norms / golden["grad_norms_f64"] - 1).max(),
        "total": abs(np.linalg.norm(norms) / golden["grad_norm_total_f64"] - 1),
        "stem": relative(first, golden["grad/input_layer.0.weight"]),
        "head bias": relative(
            grads["heads"]["conv_3_bias"][:512], golden["grad/styles.0.convs.6.bias"]
        ),
    }
    print({k: f"{v:.1e}" for k, v in found.items()})
    assert max(found.values()) < 5e-3


@pytest.mark.slow
def test_each_is_the_sum_over_all_iterations(official):
    golden = official["golden"]
    grads, _, metrics = run(official, "each")
    totals = golden["losses_per_iter_f64"][:, 0].sum()
    assert relative(metrics["loss"], totals) < 5e-5
    norms = module_norms(grads, golden["grad_norm_modules"])
    found = {
        "modules": np.abs(norms / golden["sum_all_iters/grad_norms_f64"] - 1).max(),
        "total": abs(np.linalg.norm(norms) / golden["sum_all_iters/grad_norm_total_f64"] - 1),
    }
    print({k: f"{v:.1e}" for k, v in found.items()})
    assert max(found.values()) < 5e-3


@pytest.mark.slow
def test_latents_and_picture_of_the_loop(official):
    golden, start = official["golden"], official["start"]
    result = refine(
        official["encode_with"](official["params"]),
        official["synthesize"],
        official["inputs"],
        start.w,
        image_0=start.image,
        carry=start.batch_stats,
    )
    y_hat = result.images[-1].reshape(2, 64, 4, 64, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    found = {
        "first latent": relative(result.w_plus[0], golden["latent_first_f64"]),
        "last latent": relative(result.w_plus[-1], golden["latent_last_f64"]),
        "last picture": relative(y_hat, golden["y_hat_last.pool64"]),
    }
    print({k: f"{v:.1e}" for k, v in found.items()})
    assert max(found.values()) < 5e-5
