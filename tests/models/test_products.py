"""float32 is float32: the precision of every product, read out of the lowered programs."""

import jax
import jax.numpy as jnp
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.attributes import AttributeNetwork
from interestyle_jax.models.clip import CLIP
from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.models.graphonomy import Graphonomy
from interestyle_jax.models.inception import Inception
from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.lpips import LPIPS
from interestyle_jax.models.moco import MocoEmbedder
from interestyle_jax.models.mtcnn import ONet, PNet, RNet
from interestyle_jax.models.products import Conv, Dense, einsum, matmul
from interestyle_jax.models.progressive import (
    Encoder4Editing,
    ProgressiveBackboneEncoder,
    ResNetProgressiveBackboneEncoder,
)
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.models.resnet import ResNetTrunk
from interestyle_jax.models.styleclip_mapper import StyleMapper, StyleSpaceMapper
from interestyle_jax.models.stylegan2 import Generator

TRUNK = {"units": (1, 1), "widths": (4, 4, 8)}
ENCODER = {"num_styles": 3, "input_size": 16, "head_width": 4, "w_dim": 4} | TRUNK
PYRAMID = ENCODER | {"units": (1, 1, 1), "widths": (4, 4, 8, 8), "middle_start": 1, "fine_start": 2}
GENERATOR = {"resolution": 16, "w_dim": 4, "z_dim": 4, "mapping_depth": 2, "channel_max": 4}
TEXT = {"text_layers": 1, "text_width": 4, "text_heads": 1, "text_mlp": 8, "vocab_size": 8}
TOWERS = TEXT | {"context_length": 5, "embed_dim": 4, "vision_heads": 2, "vision_mlp": 8}
NETWORKS = [
    Generator(**GENERATOR),
    Generator(**GENERATOR, form="fused"),
    Discriminator(resolution=16, channel_max=4),
    BackboneEncoder(**ENCODER),
    ProgressiveBackboneEncoder(**ENCODER),
    ResNetBackboneEncoder(**ENCODER),
    ResNetProgressiveBackboneEncoder(**ENCODER),
    GradualStyleEncoder(**PYRAMID),
    Encoder4Editing(**PYRAMID),
    ResNetTrunk(**TRUNK),
    LatentDiscriminator(w_dim=4),
    LPIPS(),
    LPIPS("vgg"),
    FaceEmbedder(**TRUNK, input_size=16),
    MocoEmbedder(units=(1, 1), width=4, input_size=32),
    Inception(divisor=64, blocks=("Mixed_7c",)),
    AttributeNetwork(8, (("hair", ("none", "long")),), ("tilt",), ("face",), widths=(8, 8)),
    PNet(),
    RNet(),
    ONet(),
    Graphonomy(widths=(4,) * 9, middle_blocks=1, features=4, low_level=4, hidden=4),
    CLIP(**TOWERS, image_size=8, patch_size=4, vision_layers=1, vision_width=4),
    CLIP(**TOWERS, image_size=64, vision_layers=(1, 1, 1, 1), vision_width=4),
    StyleMapper(num_styles=10, w_dim=4),
    StyleSpaceMapper(channels=(4, 4, 2), mapped=(0, 2)),
]


def test_every_network_is_here():
    assert {type(module) for module in NETWORKS} == set(registry.EXAMPLES)


def total(outputs):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(outputs))


@pytest.mark.parametrize("module", NETWORKS, ids=lambda module: type(module).__name__)
def test_results_and_gradients_are_exact_in_float32(module, products):
    variables = registry.variable_shapes(registry.describe(module))
    inputs = registry.EXAMPLES[type(module)](module)

    def loss(variables, *inputs):
        return total(module.apply(variables, *inputs))

    found = products(jax.grad(loss, argnums=(0, 1)), variables, *inputs)
    assert [product for product in found if not product.exact] == []


HALF = [module for module in NETWORKS if registry.has_field(registry.describe(module), "dtype")]


@pytest.mark.parametrize("module", HALF, ids=lambda module: type(module).__name__)
def test_bfloat16_is_left_fast_and_what_stays_float32_is_exact(module, products):
    low = registry.build(registry.describe(module), dtype=jnp.bfloat16, **compute(module))
    variables = registry.variable_shapes(registry.describe(module))
    inputs = registry.EXAMPLES[type(module)](module)

    found = products(low.apply, variables, *inputs)
    assert all(product.fast or product.exact for product in found)
    convolutions = [product for product in found if product.kind == "convolution"]
    assert convolutions and all(product.fast for product in convolutions)
    assert any(product.exact for product in found)


def compute(module):
    return {"form": module.form} if isinstance(module, Generator) else {}


def test_styles_and_demodulation_are_exact_beside_bfloat16_convolutions(products):
    module = Generator(**GENERATOR, dtype=jnp.bfloat16)
    variables = registry.variable_shapes(registry.describe(module))
    w_plus = jax.ShapeDtypeStruct((2, module.num_styles, module.w_dim), jnp.float32)
    found = products(lambda v, w: module.apply(v, w, method="synthesize"), variables, w_plus)
    # 4 to 16 pixels: five 3x3 convolutions, with style and demodulation; three ToRGB, with style.
    assert len([p for p in found if p.kind == "dot_general"]) == 5 + 5 + 3
    assert all(p.exact for p in found if p.kind == "dot_general")
    convolutions = [p for p in found if p.kind == "convolution"]
    assert len(convolutions) == 5 + 3 and all(p.fast for p in convolutions)


def test_a_callers_configuration_changes_nothing(products):
    x, kernel = jnp.ones((2, 4)), jnp.ones((4, 4))
    with jax.default_matmul_precision("bfloat16"):
        found = products(lambda a, b: einsum("ij,jk->ik", matmul(a, b), b), x, kernel)
        found += products(Dense(4).apply, {"params": {"kernel": kernel, "bias": x[0]}}, x)
        image = jnp.ones((1, 4, 4, 4))
        params = {"kernel": jnp.ones((3, 3, 4, 4)), "bias": x[0]}
        found += products(Conv(4, (3, 3)).apply, {"params": params}, image)
    assert len(found) == 4 and all(product.exact for product in found)


def test_types_that_differ_meet_in_the_wider_one(products):
    low, high = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((4, 4))
    found = products(matmul, low, high) + products(
        lambda a, b: einsum("ij,jk->ik", a, b), low, high
    )
    assert all(product.exact for product in found)
