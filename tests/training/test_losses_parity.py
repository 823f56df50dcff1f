"""L2, LPIPS, identity and MoCo losses against the official code's values and gradients.

The networks are the official ones at full size, from regenerated files through the converter.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models.face_crop import id_crop
from interestyle_jax.models.moco import nearest_resize
from interestyle_jax.training.losses import ImageLoss, embed_with, identity
from interestyle_jax.weights import load_weights

pytestmark = pytest.mark.slow

LPIPS_FILES = {
    "alexnet.pth": lambda fill: fill("alexnet", "features"),
    "alex.pth": lambda fill: fill("lin"),
}
MOCO_FILE = {
    "moco.pth.tar": lambda fill: {
        "epoch": 800,
        "arch": "resnet50",
        "state_dict": fill("state_dict"),
    }
}


@pytest.fixture(scope="module")
def case(golden_case):
    """The golden numbers, and images y_hat, y, x and mask [2, 256, 256, C]."""
    numbers, inputs = golden_case("losses")
    names = {"y_hat": "yhat", "y": "y", "x": "x"}
    images = {k: jnp.asarray(inputs[f"input:loss:{v}"]) for k, v in names.items()}
    return numbers, images | {"mask": jnp.asarray(inputs["input:loss:mask"][..., :1])}


def check(name, got, want, *, rel_l2, rel_max):
    """Within golden/README.md's tolerances."""
    error = np.asarray(got, np.float64) - want
    found = np.linalg.norm(error) / np.linalg.norm(want), np.abs(error).max() / np.abs(want).max()
    print(f"parity losses {name}: rel L2 {found[0]:.2e}, rel max {found[1]:.2e}")
    assert error.shape == np.shape(want)
    assert found[0] < rel_l2 and found[1] < rel_max


def check_value(name, got, want):
    check(name, got, want, rel_l2=2e-5, rel_max=2e-5)


def check_stored(goldenfill, name, got, numbers, *, rel_l2=1e-5, rel_max=3e-5):
    """Values of a large NHWC array at the places where the golden file keeps them."""
    got = np.asarray(got).transpose(0, 3, 1, 2)
    stored = numbers[f"{name}.sub"]
    assert got.shape == tuple(numbers[f"{name}.shape"])
    index = goldenfill.subset_index(got.size, stored.size)
    check(name, got.ravel()[index], stored, rel_l2=rel_l2, rel_max=rel_max)


def test_l2(case):
    numbers, p = case
    loss = ImageLoss({"l2": 1.0})
    check_value("l2", loss(p["y"], p["y_hat"], None)[0].mean(), numbers["l2_f64"])
    masked = loss(p["y"], p["y_hat"], p["mask"])[0].mean()
    check_value("l2_masked", masked, numbers["l2_masked_f64"])


def test_lpips(case, golden_weights, goldenfill):
    numbers, p = case
    module, variables = load_weights(golden_weights("lpips_alex", LPIPS_FILES)).part("lpips")

    @jax.jit
    def run(variables, y_hat, y, mask):
        loss = ImageLoss({"lpips": 1.0}, lambda a, b: module.apply(variables, a, b))
        value, gradient = jax.value_and_grad(lambda x: loss(y, x, None)[0].mean())(y_hat)
        return value, gradient, loss(y, y_hat, mask)[0].mean()

    value, gradient, masked = run(variables, p["y_hat"], p["y"], p["mask"])
    check_value("lpips", value, numbers["lpips_f64"])
    check_value("lpips_masked", masked, numbers["lpips_masked_f64"])
    check_stored(goldenfill, "grad/lpips_yhat", gradient, numbers, rel_l2=5e-3, rel_max=2e-2)


def test_identity(case, golden_weights, goldenfill):
    numbers, p = case
    module, variables = load_weights(golden_weights("arcface_ir_se50")).part("embedder")

    @jax.jit
    def run(variables, y_hat, y, x, mask):
        embed = embed_with(module, variables)
        value, gradient = jax.value_and_grad(lambda a: identity(embed, y, a).mean())(y_hat)
        logs = [1 - identity(embed, a, b) for a, b in ((y, y_hat), (x, y_hat), (x, y))]
        masked = ImageLoss({"id": 1.0}, None, embed)(y, y_hat, mask)[0].mean()
        return value, gradient, embed(y_hat), jnp.stack(logs, axis=-1), masked

    value, gradient, feature, logs, masked = run(variables, p["y_hat"], p["y"], p["x"], p["mask"])
    check_stored(goldenfill, "feat/id_crop112", id_crop(p["y_hat"]), numbers)
    check("feat/id_yhat", feature, numbers["feat/id_yhat_f64"], rel_l2=1e-5, rel_max=3e-5)
    check_value("id", value, numbers["id_f64"])
    check_value("id_masked", masked, numbers["id_masked_f64"])
    check_value("id_logs", logs, numbers["id_logs_f64"])
    improve = (logs[:, 0] - logs[:, 2]).mean()
    assert abs(float(improve) - float(numbers["id_improve_f64"])) < 1e-6
    check_stored(goldenfill, "grad/id_yhat", gradient, numbers, rel_l2=5e-3, rel_max=2e-2)


def test_moco(case, golden_weights, goldenfill):
    numbers, p = case
    module, variables = load_weights(golden_weights("moco_v2_resnet50", MOCO_FILE)).part("embedder")
    embed = jax.jit(lambda variables, x: embed_with(module, variables)(x))
    features = {k: embed(variables, p[k]) for k in ("y_hat", "y", "x")}
    check_stored(goldenfill, "feat/moco_interp224", nearest_resize(p["y_hat"], 224), numbers)
    ramp = jnp.arange(256.0)[None, :, None, None] * jnp.ones((1, 1, 256, 1))
    np.testing.assert_array_equal(
        nearest_resize(ramp, 224)[0, :, 0, 0], numbers["moco_nearest_index_256_to_224"]
    )
    want = numbers["feat/moco_yhat_f64"]
    check("feat/moco_yhat", features["y_hat"], want, rel_l2=1e-5, rel_max=3e-5)
    # The features of different images are nearly parallel here, the losses nearly zero.
    alike = {k: jnp.sum(features["y"] * features[k], axis=-1) for k in ("y_hat", "x")}
    found = {
        "moco": identity(lambda x: x, features["y"], features["y_hat"]).mean(),
        "moco_improve": (alike["y_hat"] - alike["x"]).mean(),
    }
    for name, value in found.items():
        error = abs(float(value) - float(numbers[f"{name}_f64"]))
        print(f"parity losses {name}: absolute {error:.1e}")
        assert error < 1e-6
