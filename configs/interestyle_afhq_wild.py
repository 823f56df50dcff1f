"""IntereStyle on wild animals: AFHQ, with the 512 StyleGAN2-ADA of AFHQ-wild.

    interestyle convert afhqwild.pkl weights/stylegan2_ada_afhqwild
    interestyle convert moco_v2_800ep_pretrain.pth.tar weights/moco
    interestyle convert resnet34-333f7ec4.pth weights/resnet34
    interestyle data --images=afhq --class=wild --masks=detr --out=data/afhq_wild --size=256
    bash launch/gpu_node.sh --config=configs/interestyle_afhq_wild.py --workdir=runs/afhq_wild

From the paper: the data (about 4,730 and 500 images), DETR's masks of the whole body. From
ReStyle, which has an AFHQ-wild encoder: for everything but faces a ResNet34 from ImageNet's weights
and, in place of identity, MoCo with weight 0.5 (`weights.id` names it, `loss.id` weighs it). Not
known, and taken from the face run: lambda, the radii (of images at their own size, 512), the
dilation; the number of steps is a guess.

Work, counted by XLA and not measured: 1.4 TFLOP an image, 11.5 a step of 8; 15 ms at the full 790
TFLOP/s of an H100's bfloat16 products, 24 minutes for all steps, and longer in fact. State 2.6 GiB
a device (176.5 million parameters), frozen networks 0.1 GiB; activations come on top.

Expected: the paper shows images of animals and gives no figures.

`:smoke` is two tiny steps in the avatar world, without MoCo.
"""

from interestyle_jax.config.presets import encoder_config
from interestyle_jax.config.smoke import shrink_encoder


def get_config(size: str = "full"):
    """`size`: "full" or "smoke"."""
    if size not in ("full", "smoke"):
        raise ValueError(f"configs/interestyle_afhq_wild.py: expected full or smoke, got {size!r}")
    config = encoder_config("interestyle")
    config.data.dir = "data/afhq_wild"
    config.data.workers = 8
    config.weights.generator = "weights/stylegan2_ada_afhqwild"
    config.weights.id = "weights/moco"
    config.weights.trunk = "weights/resnet34"
    config.encoder.type = "ResNetBackboneEncoder"
    config.licence = "as its generator's"
    # The released code blurs images at their own size, 512 here.
    config.method.filter_reference = 512
    config.loss.id = 0.5
    config.compute_dtype = "bfloat16"
    config.num_steps = 100_000
    config.checkpoint_every = 1000
    config.image_every = 5000
    config.validation_samples = 500
    if size == "smoke":
        shrink_encoder(config)
    return config
