"""Every official encoder at full size against the official code, through the converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.weights import load_weights

# Golden file, manifest, options, {the golden output's name: stage}, inputs of one pass.
CASES = {
    "psp": ("enc_psp", "psp_ffhq", {"encoder_type": "GradualStyleEncoder"}, {"wplus": None}, "x"),
    "e4e": (
        "enc_e4e",
        "e4e_ffhq",
        {"encoder_type": "Encoder4Editing", "stylegan_size": 1024},
        {"wplus_stage0": 0, "wplus_stage5": 5, "wplus_stage18": 18},
        "x",
    ),
    "restyle_psp": (
        "enc_restyle_psp",
        "restyle_psp_ffhq",
        {"encoder_type": "BackboneEncoder"},
        {"wplus_delta": None},
        "xy",
    ),
    "restyle_e4e": (
        "enc_restyle_e4e",
        "restyle_e4e_ffhq",
        {"encoder_type": "ProgressiveBackboneEncoder", "dataset_type": "ffhq_encode"},
        {"wplus_stage0": 0, "wplus_stage6": 6, "wplus_stage18": None},
        "xy",
    ),
    "resnet": (
        "enc_resnet",
        "restyle_psp_resnet_512",
        {"encoder_type": "ResNetBackboneEncoder", "dataset_type": "cars_encode"},
        {"wplus_delta_256": None},
        "xy",
    ),
    "resnet_cars": (
        "enc_resnet",
        "restyle_psp_resnet_512",
        {"encoder_type": "ResNetBackboneEncoder", "dataset_type": "cars_encode"},
        {"wplus_delta_192x256": None},
        ("xc", "yc"),
    ),
    "resnet_progressive": (
        "enc_resnet",
        "restyle_e4e_resnet_256",
        {"encoder_type": "ResNetProgressiveBackboneEncoder"},
        {"progressive_wplus_stage0": 0, "progressive_wplus_stage18": 18},
        "xy",
    ),
}


def checkpoint(opts, sections):
    def layout(fill):
        content = {"state_dict": fill("state_dict"), "opts": opts}
        content["latent_avg"] = fill("latent_avg")["latent_avg"]
        if "discriminator_state_dict" in sections:
            content["discriminator_state_dict"] = fill("discriminator_state_dict")
        return content

    return {"best_model.pt": layout}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_official_encoder(name, golden_case, golden_weights, golden_manifest):
    golden, manifest, opts, outputs, inputs = CASES[name]
    layouts = checkpoint(opts, golden_manifest(manifest))
    encoder, variables = load_weights(golden_weights(manifest, layouts)).part("encoder")
    assert type(encoder).__name__ == opts["encoder_type"]
    numbers, images = golden_case(golden)
    images = {key.split(":")[-1]: value for key, value in images.items()}
    x = jnp.asarray(np.concatenate([images[i] for i in inputs], axis=-1))
    if "progressive" in name:
        # One image, as the golden file has it.
        x = x[:1]

    @jax.jit
    def rows(variables, x):
        stages = outputs.values()
        if list(stages) == [None]:
            return [encoder.apply(variables, x)]
        return [encoder.apply(variables, x, stage=stage) for stage in stages]

    for key, got in zip(outputs, rows(variables, x), strict=True):
        want = np.asarray(numbers[f"{key}_f64"], np.float64)
        error = np.asarray(got, np.float64) - want
        rel_l2 = np.linalg.norm(error) / np.linalg.norm(want)
        rel_max = np.abs(error).max() / np.abs(want).max()
        print(f"{golden} {key}: rel L2 {rel_l2:.1e}, rel max {rel_max:.1e}")
        assert rel_l2 < 1e-5
        assert rel_max < 3e-5
