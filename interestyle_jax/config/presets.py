"""One config tree; every run of the project and every baseline of the paper is a preset of it.

Files under `configs/` take a preset and change what is theirs.
"""

from ml_collections import ConfigDict

_WHOLE_IMAGE = {
    "interest_loss": False,
    "filter_radii": (0.0, 0.0, 0.0, 0.0),
    "disentangle_weight": 0.0,
}
# What of `config.method` makes a preset; everything else is the run's own.
ENCODER_PRESETS = {
    "interestyle": {
        "interest_loss": True,
        "gradient": "last",
        "filter_radii": (16.0, 9.0, 4.0, 1.0),
        "disentangle_weight": 0.05,
    },
    "restyle_psp": {"gradient": "each", **_WHOLE_IMAGE},
    "restyle_e4e": {"gradient": "each", **_WHOLE_IMAGE},
    "psp": {"gradient": "last", **_WHOLE_IMAGE},
    "e4e": {"gradient": "last", **_WHOLE_IMAGE},
    "idinvert": {"gradient": "last", **_WHOLE_IMAGE},
}
# Presets whose encoder sees the image alone, and runs once.
SINGLE_PASS = ("psp", "e4e", "idinvert")
# Presets with a discriminator of latents, and rows that get changes of their own one by one.
ADVERSARIAL = ("e4e", "restyle_e4e")
ADVERSARIAL_WEIGHTS = {"weight": 0.1, "delta_weight": 2e-4}
# Presets with a discriminator of images, and the weight of the encoder's loss against it.
IN_DOMAIN, IN_DOMAIN_WEIGHT = ("idinvert",), 0.08
# Encoder of a preset over IR-SE50, and over ResNet34.
ENCODERS = {
    "interestyle": ("BackboneEncoder", "ResNetBackboneEncoder"),
    "restyle_psp": ("BackboneEncoder", "ResNetBackboneEncoder"),
    "restyle_e4e": ("ProgressiveBackboneEncoder", "ResNetProgressiveBackboneEncoder"),
    "psp": ("GradualStyleEncoder",),
    "e4e": ("Encoder4Editing",),
    "idinvert": ("BackboneEncoder", "ResNetBackboneEncoder"),
}
NUM_ITERATIONS = 5


def set_preset(config: ConfigDict, preset: str) -> ConfigDict:
    """Makes a config, in place, one of another preset.

    Its method changes, with the encoder's type and inputs, the number of iterations where it is
    or was one, and the weights of e4e's losses; the trunk below the encoder stays.

    Args:
      config: from `encoder_config` or `generator_config`.
      preset: "interestyle" (the paper), or a baseline of it: "restyle_psp" (whole image, a loss
        on every iteration, no filter, no disentanglement), "psp" (one pass), "restyle_e4e" and
        "e4e" (with e4e's losses on latents), "idinvert" (IDInvert's domain-guided encoder, one
        pass, for StyleGAN2); "stylegan2" for a generator's.

    Raises:
      ValueError: a preset that the config's task does not have, or not over its trunk.
    """
    known = tuple(ENCODER_PRESETS) if config.task == "encoder" else ("stylegan2",)
    if preset not in known:
        raise ValueError(f"config.preset: expected one of {', '.join(known)}, got {preset!r}")
    if preset in ENCODER_PRESETS:
        over_resnet = config.encoder.type.startswith("ResNet")
        if over_resnet and len(ENCODERS[preset]) == 1:
            raise ValueError(f"config.preset: {preset} is not known over a ResNet trunk")
        config.encoder.type = ENCODERS[preset][over_resnet]
        single = preset in SINGLE_PASS
        if single or "input_channels" in config.encoder:
            config.encoder.input_channels = 3 if single else 6
        if single or config.method.num_iterations == 1:
            config.method.num_iterations = 1 if single else NUM_ITERATIONS
        on = preset in ADVERSARIAL
        for name, weight in ADVERSARIAL_WEIGHTS.items():
            config.adversary[name] = weight if on else 0.0
        config.in_domain.weight = IN_DOMAIN_WEIGHT if preset in IN_DOMAIN else 0.0
        config.method.update(ENCODER_PRESETS[preset])
    config.preset = preset
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
            "image_every": 1000,
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
            "mesh": {"data": -1, "fsdp": 1, "shard_frozen": False, "shard_optimizer": False},
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
                    # Of "idinvert": VGG16 (lpips_vgg), and where the discriminator starts.
                    "vgg": "",
                    "discriminator": "",
                },
                "encoder": {"type": "BackboneEncoder", "input_channels": 6},
                # Height and width of what the encoder sees, official cars (192, 256); (): square.
                "image_shape": (),
                "method": {
                    "num_iterations": NUM_ITERATIONS,
                    **ENCODER_PRESETS["interestyle"],
                    "filter_reference": 1024,
                    "filter_region": "uninterest",
                    "disentangle_through_w": False,
                    "dilation_radius": 8,
                    # Share of the samples that get another image's uninterest region.
                    "swap": 0.0,
                    "noise": "random",
                    # "unroll" or "scan"; "" leaves it to the backend (`models.backend`).
                    "loop": "",
                },
                # "consistency": between the inversions of an image and of its swapped form.
                "loss": {"l2": 1.0, "lpips": 0.8, "id": 0.1, "w_norm": 0.0, "consistency": 0.0},
                # e4e's, on latents; on where a weight is above 0 (`training.latent_adversary`).
                "adversary": {
                    "weight": 0.0,
                    "delta_weight": 0.0,
                    "learning_rate": 2e-5,
                    "r1_gamma": 10.0,
                    "r1_every": 16,
                    "pool_size": 50,
                    "official_fakes": False,
                },
                # IDInvert's; on where the weight is above 0 (`training.in_domain_task`).
                "in_domain": {
                    "weight": 0.0,
                    # conv4_3 of VGG16, or "lpips", which `loss.lpips` weighs.
                    "perceptual": "conv4_3",
                    "features_weight": 5e-5,
                    "r1_gamma": 10.0,
                    "r1_every": 16,
                    # Of a discriminator that starts anew.
                    "discriminator": {"channel_base": 32768, "channel_max": 512},
                    "optimizer": {"learning_rate": 1e-4, "b1": 0.9, "b2": 0.99},
                },
                # The latents that drawn avatars are known to have; on where a number is above 0
                # (`training.supervised_encoder_task`). "weight": of their error beside L_Image;
                # "until": share of the steps, the first ones, that learn by it alone.
                "known_latents": {"weight": 0.0, "until": 0.0, "style": "toon-head"},
                # From which step, and how often then, a row gets a change of its own.
                "progressive": {"start": 20_000, "every": 2000},
                "optimizer": {"name": "ranger", "learning_rate": 1e-4, "schedule": "constant"},
                "ema_decay": 0.0,
                # Parts in which a batch is differentiated, one after the other.
                "accumulate": 1,
                # Type of convolutions and maps: float32 or bfloat16 (`training.precision`).
                "compute_dtype": "float32",
                # What the backward pass computes again: none, block or iteration.
                "remat": "none",
                # Share of the steps, the first ones, that run one iteration without filter and
                # disentanglement; all others run N. 0.0: none, as in the paper.
                "single_pass_until": 0.0,
                # Whose rows BatchNorm normalises by: all devices' (global), each its own (local).
                "batch_norm": "global",
                # Share of the steps after which BatchNorm uses its running statistics; 1.0: never.
                "freeze_batch_norm_after": 1.0,
            }
        )
    )
    return set_preset(config, preset)


def default_config(task: str, preset: str) -> ConfigDict:
    """The config of a task and preset with every field at its default.

    Raises:
      ValueError: unknown preset.
    """
    avatar_tasks = {
        "distillation": distillation_config,
        "attributes": attribute_config,
        "clip": clip_config,
        "mapper": mapper_config,
    }
    if task in avatar_tasks:
        return avatar_tasks[task]()
    return generator_config() if task == "generator" else encoder_config(preset)


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
                    # How it is computed (`Generator.form`); "" leaves it to the backend.
                    "form": "",
                },
                "discriminator": {"channel_base": 32768, "channel_max": 512},
                "gan": {
                    # Of the data set: "clean" avatars, or any "image" such as photographs.
                    "field": "clean",
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


def distillation_config() -> ConfigDict:
    """Supervised training of a StyleGAN2 on avatars, from the factors they were drawn with."""
    config = _run()
    config.update(
        ConfigDict(
            {
                "task": "distillation",
                "preset": "stylegan2",
                # Of the avatars; a data set of another style has other factors.
                "style": "toon-head",
                "generator": {
                    "resolution": 64,
                    "z_dim": 64,
                    # Three from z to factors, the others from factors to w.
                    "mapping_depth": 6,
                    "channel_base": 2048,
                    "channel_max": 128,
                    "form": "",
                },
                "weights": {"lpips": "lpips_alex"},
                "loss": {"l1": 2.0, "lpips": 0.5},
                # The embedding's learning rate as a share of the synthesis network's.
                "embedding_rate": 1.5,
                # Steps that the moving average looks back.
                "ema_steps": 500.0,
                # The second rate is of biases and what else is no matrix.
                "optimizer": {
                    "learning_rate": 0.02,
                    "adam_learning_rate": 0.003,
                },
            }
        )
    )
    config.data.flip = False
    return config


def attribute_config() -> ConfigDict:
    """Training of a network that reads avatars: attributes, numbers and regions."""
    config = _run()
    config.update(
        ConfigDict(
            {
                "task": "attributes",
                "preset": "attributes",
                "style": "toon-head",
                "resolution": 64,
                "widths": (24, 48, 96, 96),
                # Standard deviation, at most, of what is added to images in [-1, 1].
                "noise": 0.1,
                "ema_steps": 500.0,
                "optimizer": {
                    "name": "muon",
                    "learning_rate": 0.02,
                    "adam_learning_rate": 0.003,
                    "b2": 0.99,
                    "schedule": "cosine",
                },
            }
        )
    )
    config.data.flip = False
    return config


def clip_config() -> ConfigDict:
    """Training of a small CLIP on avatars, with captions of what they show."""
    config = _run()
    config.update(
        ConfigDict(
            {
                "task": "clip",
                "preset": "clip",
                "style": "toon-head",
                "clip": {
                    "embed_dim": 64,
                    "image_size": 64,
                    "patch_size": 8,
                    "vision_layers": 4,
                    "vision_width": 128,
                    "vision_heads": 4,
                    "vision_mlp": 512,
                    "text_layers": 3,
                    "text_width": 96,
                    "text_heads": 4,
                    "text_mlp": 384,
                },
                # Standard deviation, at most, of what is added to images in [-1, 1].
                "noise": 0.2,
                "ema_steps": 500.0,
                "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.05},
            }
        )
    )
    config.data.flip = False
    return config


def mapper_config() -> ConfigDict:
    """Training of StyleCLIP's mapper for one text, as the official code does it."""
    config = _run()
    config.update(
        ConfigDict(
            {
                "task": "mapper",
                "preset": "mapper",
                # What the edit should show.
                "text": "",
                "levels": ("coarse", "medium", "fine"),
                # Factor of the mapper's change.
                "strength": 0.1,
                # Latents to learn from, `.npy` [N, L, D] or a latents.npz; "": random samples.
                "latents": "",
                "truncation_psi": 0.7,
                "weights": {"generator": "", "clip": "", "id": ""},
                "loss": {"clip": 1.0, "latent": 0.8, "id": 0.1},
                "optimizer": {"name": "ranger", "learning_rate": 0.5, "schedule": "constant"},
                "num_steps": 50_000,
                "batch_size": 2,
            }
        )
    )
    return config
