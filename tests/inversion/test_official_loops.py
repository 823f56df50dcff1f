"""The official refinement loops at full size: converted checkpoint in, latents and images out."""

import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij

# Golden case -> manifest, its file's opts, iterations.
LOOPS = {
    "loop_interestyle_1024": (
        "interestyle_ffhq",
        {"encoder_type": "BackboneEncoder", "dataset_type": "ffhq_encode", "apply_mask_loss": True},
        5,
    ),
    "loop_e4e_1024": (
        "restyle_e4e_ffhq",
        {"encoder_type": "ProgressiveBackboneEncoder", "dataset_type": "ffhq_encode"},
        2,
    ),
    "loop_cars_512": (
        "restyle_psp_resnet_512",
        {"encoder_type": "ResNetBackboneEncoder", "dataset_type": "cars_encode"},
        3,
    ),
}


def checkpoint(opts):
    def layout(fill):
        return {
            "state_dict": fill("state_dict"),
            "latent_avg": fill("latent_avg")["latent_avg"],
            "opts": opts,
        }

    return {"best_model.pt": layout}


def errors(got, want):
    """Relative L2 and maximum."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    difference = np.abs(got - want)
    return np.linalg.norm(difference) / np.linalg.norm(want), difference.max() / np.abs(want).max()


def latents_and_images(numbers, inversion, goldenfill):
    """Per iteration: errors of the latent and of the image's stored pixels and block means."""
    rows = []
    for i in range(len(inversion.w_plus)):
        key = f"image_iter{i + 1}"
        image = np.asarray(inversion.images[i]).transpose(0, 3, 1, 2)
        pixels = numbers[f"{key}.sub"]
        index = goldenfill.subset_index(image.size, len(pixels))
        latent = numbers.get(f"latent_iter{i + 1}_f64", numbers[f"latent_iter{i + 1}"])
        rows.append(
            {
                "latent": errors(inversion.w_plus[i], latent),
                "pixels": errors(image.ravel()[index], pixels),
            }
        )
        assert list(image.shape) == list(numbers[f"{key}.shape"])
    return rows


def report(name, rows):
    for i, row in enumerate(rows):
        text = ", ".join(f"{k} rel L2 {a:.1e} rel max {b:.1e}" for k, (a, b) in row.items())
        print(f"{name} iteration {i + 1}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_official_loop(name, golden_case, golden_weights, goldenfill):
    manifest, opts, steps = LOOPS[name]
    numbers, inputs = golden_case(name)
    model = ij.load(golden_weights(manifest, checkpoint(opts)))
    (images,) = inputs.values()
    inversion = model.invert(jnp.asarray(images), num_steps=steps)
    rows = latents_and_images(numbers, inversion, goldenfill)
    report(name, rows)
    for row in rows:
        for l2, largest in row.values():
            assert l2 < 3e-5
            assert largest < 1e-4


@pytest.mark.slow
def test_bfloat16_at_full_size(golden_case, golden_weights, goldenfill):
    """Random weights amplify: the latent grows tenfold in five iterations, and errors with it."""
    manifest, opts, steps = LOOPS["loop_interestyle_1024"]
    numbers, inputs = golden_case("loop_interestyle_1024")
    model = ij.load(golden_weights(manifest, checkpoint(opts)), dtype="bfloat16")
    (images,) = inputs.values()
    inversion = model.invert(jnp.asarray(images), num_steps=steps)
    rows = latents_and_images(numbers, inversion, goldenfill)
    report("bfloat16", rows)
    first = rows[0]["latent"][0]
    assert 1e-4 < first < 2e-2
    assert np.isfinite(np.asarray(inversion.images)).all()
