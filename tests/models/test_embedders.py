"""Face embedders and MoCo against PyTorch at tiny size, and the official code at full size.

Every network goes through its checkpoint's official layout and the converter.
"""

import jax
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.moco import MocoEmbedder, nearest_resize
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert
from tools.convert_weights.families import face_embedders, moco

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
F = torch.nn.functional

TINY = {"units": (1, 2), "widths": (32, 32, 48), "dim": 5, "input_size": 12}
TINY_FACES = {
    "arcface": FaceEmbedder(**TINY),
    "curricularface": FaceEmbedder(**TINY, squeeze_excitation=False, affine_output=False),
}
TINY_MOCO = MocoEmbedder(units=(1, 2), width=4)


def random_state_dict(module, entries, seed):
    """{official key: tensor} with every value far from its initial one."""
    rng = np.random.default_rng(seed)
    shapes = registry.variable_shapes(registry.describe(module))
    tensors = {}
    for entry in entries:
        spec = shapes
        for name in entry.target.split("/"):
            spec = spec[name]
        spread = 0.3 if len(spec.shape) == 1 else 1 / np.sqrt(np.prod(spec.shape[:-1]))
        value = rng.normal(0, spread, spec.shape).astype(np.float32)
        if entry.target.endswith(("scale", "var")):
            value = 1 + np.abs(value)
        tensors[entry.source] = torch.from_numpy(np.array(entry.layout.to_source(value)))
    return tensors


def norm(x, p, key):
    """BatchNorm by running statistics, by its formula; channels are axis 1."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    y = (x - p[f"{key}.running_mean"].view(shape)) / torch.sqrt(
        p[f"{key}.running_var"].view(shape) + 1e-5
    )
    if f"{key}.weight" in p:
        y = y * p[f"{key}.weight"].view(shape) + p[f"{key}.bias"].view(shape)
    return y


def face_reference(x, p, strides):
    """The definition of an IR network on NCHW, by its official keys; strides of the blocks."""
    x = F.conv2d(x, p["input_layer.0.weight"], padding=1)
    x = F.prelu(norm(x, p, "input_layer.1"), p["input_layer.2.weight"])
    for i, stride in enumerate(strides):
        key = f"body.{i}.res_layer"
        y = F.conv2d(norm(x, p, f"{key}.0"), p[f"{key}.1.weight"], padding=1)
        y = F.prelu(y, p[f"{key}.2.weight"])
        y = norm(F.conv2d(y, p[f"{key}.3.weight"], padding=1, stride=stride), p, f"{key}.4")
        if f"{key}.5.fc1.weight" in p:
            gate = F.relu(F.conv2d(y.mean((2, 3), keepdim=True), p[f"{key}.5.fc1.weight"]))
            y = y * torch.sigmoid(F.conv2d(gate, p[f"{key}.5.fc2.weight"]))
        key = f"body.{i}.shortcut_layer"
        if f"{key}.0.weight" in p:
            x = norm(F.conv2d(x, p[f"{key}.0.weight"], stride=stride), p, f"{key}.1")
        else:
            x = F.max_pool2d(x, 1, stride)
        x = x + y
    x = norm(x, p, "output_layer.0").flatten(1)
    x = norm(F.linear(x, p["output_layer.3.weight"], p["output_layer.3.bias"]), p, "output_layer.4")
    return x / x.norm(dim=1, keepdim=True)


def moco_reference(x, p):
    """The definition of ResNet50's shape of network on NCHW images of any size."""
    p = {key.removeprefix(moco.QUERY): value for key, value in p.items()}
    x = F.interpolate(x, size=224, mode="nearest")
    x = F.relu(norm(F.conv2d(x, p["conv1.weight"], stride=2, padding=3), p, "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, unit, stride in [(1, 0, 1), (2, 0, 2), (2, 1, 1)]:
        key = f"layer{layer}.{unit}"
        y = F.relu(norm(F.conv2d(x, p[f"{key}.conv1.weight"]), p, f"{key}.bn1"))
        y = F.conv2d(y, p[f"{key}.conv2.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(norm(y, p, f"{key}.bn2")), p[f"{key}.conv3.weight"])
        if f"{key}.downsample.0.weight" in p:
            x = F.conv2d(x, p[f"{key}.downsample.0.weight"], stride=stride)
            x = norm(x, p, f"{key}.downsample.1")
        x = F.relu(x + norm(y, p, f"{key}.bn3"))
    return F.normalize(x.mean((2, 3)), dim=1)


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("name", TINY_FACES)
def test_tiny_face_embedder_is_its_definition(name, tmp_path):
    module = TINY_FACES[name]
    tensors = random_state_dict(module, face_embedders.entries(module), 0)
    torch.save(tensors, tmp_path / "file.pth")
    report = convert([tmp_path / "file.pth"], tmp_path / "out")
    assert f"family {name}\n" in report
    model = ij.load(tmp_path / "out")
    assert registry.build(model.metadata["architectures"]["embedder"]) == module
    faces = np.random.default_rng(1).uniform(-1, 1, (2, 12, 12, 3)).astype(np.float32)
    want = face_reference(nchw(faces), tensors, strides=(2, 2, 1))
    np.testing.assert_allclose(model.embed(faces), want, atol=2e-6)
    with pytest.raises(ValueError, match=r"faces: expected \[B, 12, 12, 3\]"):
        model.embed(faces[:, :10])


def test_tiny_moco_is_its_definition(tmp_path):
    tensors = random_state_dict(TINY_MOCO, moco.entries(TINY_MOCO), 0)
    section = {f"module.{k.removeprefix(moco.SECTION)}": v for k, v in tensors.items()}
    torch.save({"epoch": 3, "state_dict": section}, tmp_path / "file.pth.tar")
    assert "family moco\n" in convert([tmp_path / "file.pth.tar"], tmp_path / "out")
    model = ij.load(tmp_path / "out")
    assert registry.build(model.metadata["architectures"]["embedder"]) == TINY_MOCO
    images = np.random.default_rng(1).uniform(-1, 1, (2, 40, 30, 3)).astype(np.float32)
    got = model.embed(images)
    assert got.shape == (2, 32)
    np.testing.assert_allclose(got, moco_reference(nchw(images), tensors), atol=2e-6)


@pytest.mark.parametrize("size", [(256, 256), (192, 256), (100, 300)])
def test_nearest_takes_pytorchs_pixels(size):
    images = np.arange(np.prod(size), dtype=np.float32).reshape(1, *size, 1)
    want = F.interpolate(nchw(images), size=224, mode="nearest")
    np.testing.assert_array_equal(nearest_resize(images, 224)[..., 0], want[:, 0])


# Sums over the float entries of the manifests; MoCo's without its projection head.
@pytest.mark.parametrize(
    ("module", "count"),
    [
        (FaceEmbedder(), 43_824_064),
        (
            FaceEmbedder((3, 13, 30, 3), squeeze_excitation=False, affine_output=False),
            65_176_128,
        ),
        (MocoEmbedder(), 23_561_152),
    ],
    ids=["arcface", "curricularface", "moco"],
)
def test_variable_count_at_official_size(module, count):
    shapes = registry.variable_shapes(registry.describe(module))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def assert_near(name, got, want, *, rel_l2=1e-5, rel_max=3e-5):
    """Within golden/README.md's tolerances for one network's forward pass."""
    error = np.asarray(got, np.float64) - want
    found = np.linalg.norm(error) / np.linalg.norm(want), np.abs(error).max() / np.abs(want).max()
    print(f"parity {name}: rel L2 {found[0]:.2e}, rel max {found[1]:.2e}")
    assert error.shape == want.shape
    assert found[0] < rel_l2 and found[1] < rel_max


# Where the golden file looks inside: our module's path -> the official module.
TAPS = {("trunk", "stem_prelu"): "input_layer", ("embedding_norm",): "output_layer"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manifest", "name", "blocks"),
    [
        ("arcface_ir_se50", "arcface", (0, 3, 23)),
        ("curricularface_ir101", "curricular", (0, 3, 48)),
    ],
)
def test_official_face_embeddings(golden_weights, golden_case, goldenfill, manifest, name, blocks):
    numbers, inputs = golden_case("face_embeddings")
    (faces,) = inputs.values()
    directory = golden_weights(manifest)
    taps = TAPS | {("trunk", f"block_{i}"): f"body.{i}" for i in blocks}
    module, variables = load_weights(directory).part("embedder")
    names = {path[-1] for path in taps}

    @jax.jit
    def run(variables, faces):
        return module.apply(variables, faces, capture_intermediates=lambda m, _: m.name in names)[
            1
        ]["intermediates"]

    inside = run(variables, faces)
    for path, tap in taps.items():
        value = inside
        for key in (*path, "__call__"):
            value = value[key]
        key, value = f"{name}/tap/{tap}", np.asarray(value[0])
        if f"{key}_f64" in numbers:
            assert_near(f"face_embeddings {key}", value, numbers[f"{key}_f64"])
            continue
        value, stored = value.transpose(0, 3, 1, 2), numbers[f"{key}.sub"]
        assert value.shape == tuple(numbers[f"{key}.shape"])
        index = goldenfill.subset_index(value.size, stored.size)
        assert_near(f"face_embeddings {key}", value.ravel()[index], stored)
    embedding = ij.load(directory).embed(faces)
    assert_near(f"face_embeddings {name}/embedding", embedding, numbers[f"{name}/embedding_f64"])
