"""The encoder that ships, `avatar_interestyle`: configs/demo.py helped by known latents.

    interestyle data avatars --out=data/avatars --train=20000 --validation=256 --test=512
    interestyle train --config=configs/avatar_interestyle.py --workdir=runs/avatar_interestyle \
        --config.data.dir=data/avatars

The generator learnt from the avatars' factors, so every drawn avatar's w is known. The first steps
learn by its error alone (`training.supervised_encoder_task`), on one iteration and then on all; the
last ones are the paper's method with uninterest swap. All of it takes about an hour on two cores.

`:quickstart` is what `launch/quickstart.sh` runs, `:smoke` a few tiny steps.
"""

from pathlib import Path

from interestyle_jax.config.files import load_config

SIZES = ("full", "quickstart", "smoke")


def get_config(size: str = "full"):
    """`size`: "full" (the shipped encoder's training), "quickstart" or "smoke"."""
    if size not in SIZES:
        raise ValueError(
            f"configs/avatar_interestyle.py: expected one of {', '.join(SIZES)}, got {size!r}"
        )
    base = "smoke" if size == "smoke" else "full"
    config = load_config(f"{Path(__file__).with_name('demo.py')}:{base}")
    # Factors are those of the image as it is.
    config.data.flip = False
    config.known_latents.until = 0.8
    config.known_latents.weight = 0.5
    # Known latents hold the others near the mean.
    config.loss.w_norm = 0.0
    config.method.swap = 0.5
    if size == "full":
        config.num_steps = 3000
        config.single_pass_until = 0.2
        config.known_latents.until = 0.93
        # Which leaves the last steps, those of the method, a learning rate.
        config.optimizer.schedule = "linear"
        config.checkpoint_every = 250
        config.image_every = 500
    if size == "quickstart":
        config.batch_size = 32
        config.num_steps = 500
        config.known_latents.until = 0.85
        config.single_pass_until = 0.6
        config.checkpoint_every = 250
        config.image_every = 250
        config.validation_samples = 64
    return config
