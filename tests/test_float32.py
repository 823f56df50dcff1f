"""What users call is float32 on every backend: precisions in the lowered programs."""

import jax
import jax.numpy as jnp
import pytest

import interestyle_jax as ij
from interestyle_jax.evaluation import measurement
from interestyle_jax.evaluation.metrics import load_distance
from interestyle_jax.interest.uninterest_filter import filter_uninterest, low_pass
from interestyle_jax.inversion.resize import resize_images
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop

SIZE = 32


def images(size, channels=3):
    return jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)


@pytest.fixture(scope="module")
def model(tiny_weights):
    return ij.load(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def half(tiny_weights):
    return ij.load(tiny_weights / "inverter", dtype="bfloat16")


W_PLUS = jax.ShapeDtypeStruct((2, 8, 16), jnp.float32)
CALLS = {
    "synthesize": lambda model: (model.synthesize, W_PLUS),
    "map": lambda model: (model.map, jax.ShapeDtypeStruct((2, 16), jnp.float32)),
    "encode": lambda model: (model.encode, images(SIZE, 6)),
    # Larger images, so that the resize is in it.
    "invert": lambda model: (lambda x: model.invert(x, num_steps=2), images(2 * SIZE)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_models_methods_are_exact(name, model, products):
    found = products(*CALLS[name](model))
    assert [product for product in found if not product.exact] == []


@pytest.mark.parametrize("name", ["synthesize", "encode", "invert"])
def test_bfloat16_asks_for_no_precision_in_its_convolutions(name, half, products):
    found = products(*CALLS[name](half))
    assert all(product.fast or product.exact for product in found)
    assert all(product.fast for product in found if product.kind == "convolution")
    assert any(product.exact for product in found)


def test_embed_and_distance_are_exact(products):
    embedder = FaceEmbedder(units=(1, 1), widths=(4, 4, 8), input_size=16)
    architecture = registry.describe(embedder)
    variables = jax.tree.map(
        lambda spec: jnp.ones(spec.shape, spec.dtype), registry.variable_shapes(architecture)
    )
    metadata = {"architectures": {"embedder": architecture}}
    model = ij.inversion.inverter.Model({"embedder": variables}, metadata, "here")
    found = products(model.embed, images(16))
    found += products(ij.load("lpips_alex").distance, images(SIZE), images(SIZE))
    assert [product for product in found if not product.exact] == []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: resize_images(x, (8, 24)),
        lambda x: resize_images(x, (40, 64)),
        lambda x: low_pass(x, 1.5),
        lambda x: low_pass(x.astype(jnp.bfloat16), 1.5),
        lambda x: filter_uninterest(x, x[..., :1], 2.0),
        id_crop,
    ],
    ids=["shrink", "enlarge", "blur", "blur of bfloat16", "uninterest filter", "id crop"],
)
def test_resizing_and_blurring_are_exact(function, products):
    assert [product for product in products(function, images(SIZE)) if not product.exact] == []


def test_metrics_are_exact(products):
    lpips = load_distance("lpips_alex")
    batch = {"image": images(SIZE), "interest_mask": images(SIZE, 1)}
    w_plus = jax.ShapeDtypeStruct((2, *W_PLUS.shape), jnp.float32)
    drawn = jax.ShapeDtypeStruct((1, 2, SIZE, SIZE, 3), jnp.float32)
    found = products(
        lambda *inputs: measurement.measure(
            lpips, *inputs[:3], clean_images=inputs[3], shape=(SIZE, SIZE)
        ),
        *(batch, w_plus, drawn, drawn),
    )
    # Interest, whole and leakage: five convolutions of each image, and five heads. Then MS-SSIM's
    # windows: five maps, rows and columns, at two scales.
    assert len(found) == 3 * (2 * 5 + 5) + 5 * 2 * 2
    assert [product for product in found if not product.exact] == []
