"""IntereStyle in the avatar world: an encoder of the shipped 64x64 generator.

    interestyle data avatars --out=data/avatars
    interestyle train --config=configs/demo.py --workdir=runs/demo --config.data.dir=data/avatars

The paper's method with its weights, at small size. The avatar world's own are two numbers and two
ways to train faster: the filter's radii count pixels of a 256 image (4, 2.25, 1 and 0.25 pixels
here, as many as the official encoder sees), and the mask is dilated by 2 pixels; the optimizer is
Muon, and the first steps run one iteration.

`:smoke` is a few tiny steps. The encoder that ships has a config of its own,
configs/avatar_interestyle.py.
"""

from interestyle_jax.config.presets import encoder_config
from interestyle_jax.config.smoke import shrink_run

SIZES = ("full", "smoke")


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in SIZES:
        raise ValueError(f"configs/demo.py: expected one of {', '.join(SIZES)}, got {size!r}")
    config = encoder_config("interestyle")
    config.data.dir = "data/avatars"
    config.weights.generator = "avatar_generator"
    config.licence = "CC BY 4.0 (trained on DiceBear toon-head images, see THIRD_PARTY.md)"
    config.storage_dtype = "float16"
    config.encoder = {
        "type": "BackboneEncoder",
        "input_size": 64,
        "units": (1, 2, 2, 2),
        "widths": (16, 32, 64, 128, 128),
        "head_width": 64,
    }
    config.method.filter_reference = 256
    config.method.dilation_radius = 2
    config.method.noise = "const"
    config.loss.id = 0.0
    # Demodulation cancels a style's size, so nothing else holds latents near those of z.
    config.loss.w_norm = 3e-5
    # Kernels before a batch norm grow without a bound where nothing decays them.
    config.optimizer = {
        "name": "muon",
        "learning_rate": 0.01,
        "adam_learning_rate": 3e-3,
        "b2": 0.99,
        "weight_decay": 0.1,
        "schedule": "cosine",
    }
    config.batch_size = 64
    config.num_steps = 6000
    # A step of one iteration takes two fifths of the time.
    config.single_pass_until = 0.6
    config.freeze_batch_norm_after = 0.75
    config.checkpoint_every = 500
    config.image_every = 1000
    config.log_every = 25
    config.validation_samples = 128
    if size == "smoke":
        shrink_run(config)
    return config
