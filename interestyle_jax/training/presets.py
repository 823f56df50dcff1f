"""One config tree; every run of the project and every baseline of the paper is a preset of it.

DESIGN.md section 1 has the table. Files under `configs/` take a preset and change what is theirs.
"""

from ml_collections import ConfigDict

# What of `config.method` makes a preset; everything else is the run's own.
ENCODER_PRESETS = {
    "interestyle": {
        "interest_loss": True,
        "gradient": "last",
        "filter_radii": (16.0, 9.0, 4.0, 1.0),
        "disentangle_weight": 0.05,
    },
    "restyle_psp": {
        "interest_loss": False,
        "gradient": "each",
        "filter_radii": (0.0, 0.0, 0.0, 0.0),
        "disentangle_weight": 0.0,
    },
}


def set_preset(config: ConfigDict, preset: str) -> ConfigDict:
    """Makes a config, in place, one of another preset; only its method changes.

    Args:
      config: from `encoder_config` or `generator_config`.
      preset: "interestyle" (the paper) or "restyle_psp" (its baseline: whole picture, a loss on
        every iteration, no filter, no disentanglement); "stylegan2" for a generator's.

    Raises:
      ValueError: a preset that the config's task does not have.
    """
    known = tuple(ENCODER_PRESETS) if config.task == "encoder" else ("stylegan2",)
    if preset not in known:
        raise ValueError(f"config.preset: expected one of {', '.join(known)}, got {preset!r}")
    config.preset = preset
    if preset in ENCODER_PRESETS:
        config.method.update(ENCODER_PRESETS[preset])
    return config


def _run() -> ConfigDict:
    """What both tasks share."""
    return ConfigDict(
        {
            "seed": 0,
            "num_steps": 100_000,
            "batch_size": 8,
            "checkpoint_every": 1000,
            "log_every": 50,
            "picture_every": 1000,
            "validation_samples": 256,
            "keep_latest": 2,
            "licence": "not stated",
            "storage_dtype": "float32",
            "data": {
                "dir": "",
                "train_split": "train",
                "validation_split": "validation",
                "flip": True,
                "workers": 0,
            },
            "mesh": {"data": -1, "fsdp": 1, "shard_frozen": False},
        }
    )


def encoder_config(preset: str = "interestyle") -> ConfigDict:
    """The official encoder's training at 256, for a 1024 generator.

    Args:
      preset: see `set_preset`.

    Raises:
      ValueError: unknown preset.
    """
    config = _run()
    config.update(
        ConfigDict(
            {
                "task": "encoder",
                "preset": preset,
                "weights": {
                    "generator": "",
                    "lpips": "lpips_alex",
                    "id": "",
                    # Where the encoder starts: a trunk trained for another task, or an encoder.
                    "trunk": "",
                    "encoder": "",
                },
                "encoder": {"type": "BackboneEncoder"},
                "method": {
                    "num_iterations": 5,
                    **ENCODER_PRESETS["interestyle"],
                    "filter_reference": 1024,
                    "filter_region": "uninterest",
                    "disentangle_through_w": False,
                    "dilation_radius": 8,
                    "noise": "random",
                    "loop": "unroll",
                },
                "loss": {"l2": 1.0, "lpips": 0.8, "id": 0.1},
                "optimizer": {"name": "ranger", "learning_rate": 1e-4, "schedule": "constant"},
                "ema_decay": 0.0,
                # Parts in which a batch is differentiated, one after the other.
                "accumulate": 1,
                # Type of convolutions and maps: float32 or bfloat16 (`training.precision`).
                "compute_dtype": "float32",
                # What the backward pass computes again: none, block or iteration.
                "remat": "none",
                # Share of the steps after which BatchNorm uses its running statistics; 1.0: never.
                "freeze_batch_norm_after": 1.0,
            }
        )
    )
    return set_preset(config, preset)


def generator_config() -> ConfigDict:
    """Adversarial training of a StyleGAN2, config F, at 1024."""
    config = _run()
    config.update(
        ConfigDict(
            {
                "task": "generator",
                "preset": "stylegan2",
                "generator": {
                    "resolution": 1024,
                    "mapping_depth": 8,
                    "channel_base": 32768,
                    "channel_max": 512,
                    "up_form": "separable",
                },
                "discriminator": {"channel_base": 32768, "channel_max": 512},
                "gan": {
                    "r1_gamma": 10.0,
                    "r1_every": 16,
                    "path_length_weight": 2.0,
                    "path_length_every": 4,
                    "style_mixing": 0.9,
                    "ema_half_life": 10_000.0,
                    "ema_rampup": 0.05,
                },
                "optimizer": {"name": "adam", "learning_rate": 0.002, "b1": 0.0, "b2": 0.99},
            }
        )
    )
    return config
