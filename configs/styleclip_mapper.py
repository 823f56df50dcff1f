"""StyleCLIP's mapper for one text: a small network that gives the edit of any latent.

    interestyle train --config=configs/styleclip_mapper.py --workdir=runs/angry \
        --config.text="a really angry face" --config.latents=inverted/latents.npz
    interestyle edit --weights=weights/restyle_e4e_ffhq --input=photos/ --align \
        --mapper=runs/angry/weights:0.1 --out=edited/

The official losses, optimizer and number of steps. It reads no data set: latents are random samples
of the generator, or those of `--config.latents` (StyleCLIP's: inversions of CelebA-HQ by e4e). For
edits that keep colours leave the fine level out, `--config.levels=coarse,medium`. `:smoke` runs two
steps for the avatars' generator, with a CLIP that knows them.
"""

from interestyle_jax.config.presets import mapper_config

SIZES = ("full", "smoke")


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in SIZES:
        raise ValueError(f"configs/styleclip_mapper.py: expected full or smoke, got {size!r}")
    config = mapper_config()
    config.weights.generator = "weights/restyle_e4e_ffhq"
    config.weights.clip = "weights/clip"
    config.weights.id = "weights/arcface"
    config.checkpoint_every = 2000
    config.validation_samples = 64
    config.licence = "as the generator and the CLIP that it was trained with"
    if size == "smoke":
        config.text = "a face with a smile"
        config.weights.generator = "avatar_generator"
        config.weights.clip = "avatar_clip"
        config.weights.id, config.loss.id = "", 0.0
        config.num_steps = 2
        config.checkpoint_every = 2
        config.log_every = 1
        config.validation_samples = 2
    return config
