"""One training step of the released IntereStyle coach at 256, against the official code's numbers.

All weights come from the golden data's rule and go through the converter, so every network of the
step is the official one at full size: encoder, generator, LPIPS and the identity network.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.inversion.refinement import refine, start_from
from interestyle_jax.training.encoder_gradients import EncoderLoss, Position
from interestyle_jax.training.losses import ImageLoss, embed_with
from interestyle_jax.weights import load_weights
from tools.convert_weights.encoder_table import encoder_entries

CHECKPOINT = {
    "best_model.pt": lambda fill: {
        "state_dict": fill("state_dict"),
        "latent_avg": fill("latent_avg")["latent_avg"],
        "opts": {
            "encoder_type": "BackboneEncoder",
            "output_size": 256,
            "input_nc": 6,
            "apply_mask_loss": True,
        },
    }
}
LPIPS_FILES = {
    "alexnet.pth": lambda fill: fill("alexnet", "features"),
    "alex.pth": lambda fill: fill("lin"),
}


@pytest.fixture(scope="module")
def official(golden_case, golden_weights):
    """The networks, images and numbers of the step; each network is compiled once."""
    weights = load_weights(golden_weights("interestyle_256_test", CHECKPOINT))
    assert weights.metadata["family"] == "interestyle"
    encoder, variables = weights.part("encoder")
    generator, generator_variables = weights.part("generator")
    lpips, lpips_variables = load_weights(golden_weights("lpips_alex", LPIPS_FILES)).part("lpips")
    embedder, embedder_variables = load_weights(golden_weights("arcface_ir_se50")).part("embedder")

    # Weights are arguments: as constants of a program they would be folded, slowly.
    @jax.jit
    def encode(params, stats, x):
        delta, new = encoder.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return delta, new["batch_stats"]

    @jax.jit
    def synthesize(variables, w_plus):
        return generator.apply(variables, w_plus, "const", method="synthesize")

    @jax.jit
    def embed(variables, x):
        return embed_with(embedder, variables)(x)

    distance = jax.jit(lpips.apply)
    generator_variables = jax.tree.map(jnp.asarray, generator_variables)

    def draw(w_plus):
        return synthesize(generator_variables, w_plus)

    golden, inputs = golden_case("train_step_256")
    *images, mask = (jnp.asarray(x) for x in inputs.values())
    w_avg = jnp.asarray(weights.variables["w_avg"])
    w_0, image_0 = start_from(lambda w, i: draw(w), w_avg, generator.num_styles)
    return {
        "golden": golden,
        "paths": {entry.source: entry.target for entry in encoder_entries(encoder)},
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
            lambda x: embed(embedder_variables, x),
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


def report(what, found):
    print(f"parity train_step_256 {what}:", {k: f"{v:.1e}" for k, v in found.items()})


# golden/README.md's tolerances; those of single elements are loose by necessity.
GRADIENT_TOLERANCES = {"modules": 1e-3, "total": 1e-4, "stem": 5e-3, "head bias": 5e-3}


def check_gradients(found):
    assert all(found[name] < GRADIENT_TOLERANCES[name] for name in found)


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
    for key in golden:
        if key.startswith("bn/") and not key.endswith("num_batches_tracked"):
            path = official["paths"][key.removeprefix("bn/").removeprefix("encoder.")]
            value = {"batch_stats": stats}
            for part in path.split("/"):
                value = value[part]
            found[key] = relative(value, golden[key])
    report("last", found)
    assert max(found.values()) < 2e-5

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
    report("last, gradients", found)
    check_gradients(found)


@pytest.mark.slow
def test_each_is_the_sum_over_all_iterations(official):
    golden = official["golden"]
    grads, _, metrics = run(official, "each")
    totals = golden["losses_per_iter_f64"][:, 0].sum()
    assert relative(metrics["loss"], totals) < 2e-5
    norms = module_norms(grads, golden["grad_norm_modules"])
    found = {
        "modules": np.abs(norms / golden["sum_all_iters/grad_norms_f64"] - 1).max(),
        "total": abs(np.linalg.norm(norms) / golden["sum_all_iters/grad_norm_total_f64"] - 1),
    }
    report("each, gradients", found)
    check_gradients(found)


@pytest.mark.slow
def test_latents_and_image_of_the_loop(official):
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
        "last image": relative(y_hat, golden["y_hat_last.pool64"]),
    }
    report("loop", found)
    assert max(found.values()) < 3e-5
