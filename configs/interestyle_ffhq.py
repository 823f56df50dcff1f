"""IntereStyle on faces: the paper's run, FFHQ to CelebA-HQ, with the 1024 StyleGAN2 of FFHQ.

Weights (docs/converting.md), the data set with Graphonomy's masks (docs/data.md: FFHQ to train,
CelebA-HQ's test split to validate, both at the encoder's size), and the run (docs/training.md):

    interestyle convert stylegan2-ffhq-config-f.pt weights/stylegan2_ffhq
    interestyle convert model_ir_se50.pth weights/arcface
    interestyle convert inference.pth weights/graphonomy
    interestyle data --images=ffhq-dataset --masks=graphonomy \
        --masks-option=weights=weights/graphonomy --validation-images=CelebAMask-HQ \
        --validation-masks=graphonomy --out=data/ffhq --size=256
    bash launch/gpu_node.sh --config=configs/interestyle_ffhq.py --workdir=runs/interestyle_ffhq

Known of the official run: batch 8 on one GPU, Ranger with learning rate 1e-4, N = 5, L2 1, LPIPS
0.8, identity 0.1, lambda 0.05, radii 16, 9, 4, 1, `start_from_latent_avg`. Not known: the number of
steps (its trainer's limit, 500,000, stands here; the learning rate is constant, so any earlier stop
is fine) and how far the masks were dilated. The batch is the official one; on several devices it
has to be a multiple of them (--config.batch_size), and larger batches are untried.

Work, counted by XLA and not measured: 2.0 TFLOP an image, 15.9 a step. At the full 790 TFLOP/s of
an H100's bfloat16 products that is 20 ms a step and 2.8 hours for all of them; a real step takes
longer. State 3.1 GiB a device (205.6 million parameters with Ranger's moments and slow weights),
frozen networks 0.2 GiB, each checkpoint 3.1 GiB. By XLA's plan for a CPU a batch of 8 on one device
needs 23.8 GiB more (docs/training.md), so that one GPU of 40 GB is meant to do; more devices, or
`--config.accumulate=2`, need less of each.

Expected, from the paper's Table 1 (interest / face): L2 0.013 / 0.003, LPIPS 0.075 / 0.036, ID
similarity 0.68, by

    interestyle evaluate --weights=runs/interestyle_ffhq/weights --data=data/ffhq \
        --split=validation --identity=weights/curricularface --face-detector=weights/mtcnn --out=out

`:smoke` is two tiny steps in the avatar world, with the weights that ship with the package.
"""

from interestyle_jax.config.presets import encoder_config
from interestyle_jax.config.smoke import shrink_encoder


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in ("full", "smoke"):
        raise ValueError(f"configs/interestyle_ffhq.py: expected full or smoke, got {size!r}")
    config = encoder_config("interestyle")
    config.data.dir = "data/ffhq"
    config.data.workers = 8
    config.weights.generator = "weights/stylegan2_ffhq"
    config.weights.id = "weights/arcface"
    config.weights.trunk = "weights/arcface"
    config.licence = "as its generator's"
    config.compute_dtype = "bfloat16"
    config.num_steps = 500_000
    config.checkpoint_every = 5000
    config.image_every = 5000
    config.validation_samples = 2824
    if size == "smoke":
        shrink_encoder(config)
    return config
