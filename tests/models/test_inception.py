"""FID's Inception against PyTorch on random weights, its files, and its three kinds of input."""

import jax
import numpy as np
import pytest
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.inception import BLOCKS, Inception, InceptionBlock
from interestyle_jax.models.inception_pixels import MODES, inception_pixels
from interestyle_jax.weights import load_weights
from tests.torchscript_files import save_scripted
from tools.convert_weights import convert, recognise
from tools.convert_weights.conversion import shapes
from tools.convert_weights.families.inception import nvidia_entries, torch_entries
from tools.convert_weights.source_file import SourceFile
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
functional = torch.nn.functional


def arrays_of(entries, divisor, seed=0):
    """{key: array}: kernels that keep the scale, BatchNorms that are none of the identity."""
    rng = np.random.default_rng(seed)
    expected = shapes(registry.describe(Inception(divisor)))
    arrays = {}
    for entry in entries:
        shape = expected[entry.target]
        if entry.target.endswith("kernel"):
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        elif entry.target.endswith(("var", "scale")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(size=shape) * 0.2
        arrays[entry.source] = np.array(entry.layout.to_source(value.astype(np.float32)))
    return arrays


class Reference:
    """pytorch-fid's network as functions of its state dict; maps are [B, C, H, W]."""

    def __init__(self, arrays):
        self.state = {k: torch.from_numpy(v).double() for k, v in arrays.items()}

    def unit(self, name, x, stride=1, padding=0):
        s = self.state
        x = functional.conv2d(x, s[f"{name}.conv.weight"], None, stride, padding)
        bn = [s[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *bn, training=False, eps=0.001).relu()

    def average(self, x):
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def a(self, name, x):
        unit = self.unit
        five = unit(f"{name}.branch5x5_2", unit(f"{name}.branch5x5_1", x), padding=2)
        three = unit(f"{name}.branch3x3dbl_2", unit(f"{name}.branch3x3dbl_1", x), padding=1)
        three = unit(f"{name}.branch3x3dbl_3", three, padding=1)
        pooled = unit(f"{name}.branch_pool", self.average(x))
        return torch.cat([unit(f"{name}.branch1x1", x), five, three, pooled], 1)

    def c(self, name, x):
        unit, row, column = self.unit, (0, 3), (3, 0)
        seven = unit(f"{name}.branch7x7_2", unit(f"{name}.branch7x7_1", x), padding=row)
        seven = unit(f"{name}.branch7x7_3", seven, padding=column)
        double = unit(f"{name}.branch7x7dbl_1", x)
        for i, padding in enumerate((column, row, column, row), start=2):
            double = unit(f"{name}.branch7x7dbl_{i}", double, padding=padding)
        pooled = unit(f"{name}.branch_pool", self.average(x))
        return torch.cat([unit(f"{name}.branch1x1", x), seven, double, pooled], 1)

    def e(self, name, x):
        unit = self.unit
        three = unit(f"{name}.branch3x3_1", x)
        double = unit(f"{name}.branch3x3dbl_2", unit(f"{name}.branch3x3dbl_1", x), padding=1)
        parts = [unit(f"{name}.branch1x1", x)]
        for prefix, y in (("branch3x3_2", three), ("branch3x3dbl_3", double)):
            parts.append(unit(f"{name}.{prefix}a", y, padding=(0, 1)))
            parts.append(unit(f"{name}.{prefix}b", y, padding=(1, 0)))
        pooled = functional.max_pool2d(x, 3, 1, 1) if name == "Mixed_7c" else self.average(x)
        return torch.cat([*parts, unit(f"{name}.branch_pool", pooled)], 1)

    def __call__(self, x):
        unit = self.unit
        x = unit("Conv2d_1a_3x3", x.double(), 2)
        x = unit("Conv2d_2b_3x3", unit("Conv2d_2a_3x3", x), padding=1)
        x = unit("Conv2d_3b_1x1", functional.max_pool2d(x, 3, 2))
        x = functional.max_pool2d(unit("Conv2d_4a_3x3", x), 3, 2)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(name, x)
        double = unit("Mixed_6a.branch3x3dbl_2", unit("Mixed_6a.branch3x3dbl_1", x), padding=1)
        double = unit("Mixed_6a.branch3x3dbl_3", double, 2)
        three = unit("Mixed_6a.branch3x3", x, 2)
        x = torch.cat([three, double, functional.max_pool2d(x, 3, 2)], 1)
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c(name, x)
        three = unit("Mixed_7a.branch3x3_2", unit("Mixed_7a.branch3x3_1", x), 2)
        seven = unit("Mixed_7a.branch7x7x3_2", unit("Mixed_7a.branch7x7x3_1", x), padding=(0, 3))
        seven = unit("Mixed_7a.branch7x7x3_3", seven, padding=(3, 0))
        seven = unit("Mixed_7a.branch7x7x3_4", seven, 2)
        x = torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)
        return self.e("Mixed_7c", self.e("Mixed_7b", x)).mean((2, 3))


@pytest.mark.slow
def test_official_network_equals_pytorch(tmp_path):
    divisor, size = 1, 299
    arrays = arrays_of(torch_entries(), divisor)
    state = {k: torch.from_numpy(v) for k, v in arrays.items()}
    torch.save(
        state | {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}, tmp_path / "f.pth"
    )
    convert([tmp_path / "f.pth"], tmp_path / "out")
    module, variables = load_weights(tmp_path / "out").part("inception")
    x = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    found = np.asarray(jax.jit(module.apply)(variables, x))
    want = Reference(arrays)(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert found.shape == (2, 2048 // divisor)
    assert np.linalg.norm(found - want) < 1e-5 * np.linalg.norm(want)
    assert want.std() > 1e-3
    to_pytorch(tmp_path / "out", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize(("name", "kind"), [("Mixed_5b", "a"), ("Mixed_7c", "e")])
def test_blocks_equal_pytorch(name, kind):
    """The two with pools of their own; the whole network is a slow test."""
    arrays, tree = arrays_of(torch_entries(), 64), {}
    for entry in torch_entries():
        collection, block, rest = entry.target.split("/", 2)
        if block == name:
            node = tree.setdefault(collection, {})
            *path, leaf = rest.split("/")
            for step in path:
                node = node.setdefault(step, {})
            node[leaf] = entry.layout.to_here(arrays[entry.source])
    channels = tree["params"]["branch1x1"]["conv"]["kernel"].shape[2]
    x = np.random.default_rng(1).normal(size=(2, 5, 6, channels)).astype(np.float32)
    block = InceptionBlock(BLOCKS[name], 64)
    found = np.asarray(jax.jit(block.apply)(tree, x))
    want = getattr(Reference(arrays), kind)(name, torch.from_numpy(x).double().permute(0, 3, 1, 2))
    want = want.permute(0, 2, 3, 1).numpy()
    assert np.linalg.norm(found - want) < 1e-5 * np.linalg.norm(want)


def test_nvidias_names_are_the_same_network(tmp_path):
    """The same numbers under TensorFlow's names, in a TorchScript archive, without a scale."""
    arrays = arrays_of(torch_entries(), 16)
    pairs = list(zip(torch_entries_by_target().values(), nvidia_by_target().values(), strict=True))
    content = {new: arrays[old] for old, new in pairs if not new.endswith(".gamma")}
    scales = {old: np.ones_like(arrays[old]) for old, new in pairs if new.endswith(".gamma")}

    class Holder(torch.nn.Module):
        def forward(self, x):
            return x

    root = Holder()
    for key, value in content.items():
        *path, leaf = key.split(".")
        module = root
        for name in path:
            if name not in dict(module.named_children()):
                module.add_module(name, Holder())
            module = getattr(module, name)
        module.register_buffer(leaf, torch.from_numpy(value))
    save_scripted(root, tmp_path / "inception-2015-12-05.pt")
    convert([tmp_path / "inception-2015-12-05.pt"], tmp_path / "nvidia")
    own = {k: torch.from_numpy(v) for k, v in (arrays | scales).items()}
    torch.save(own, tmp_path / "f.pth")
    convert([tmp_path / "f.pth"], tmp_path / "torch")
    trees = [load_weights(tmp_path / name).variables for name in ("nvidia", "torch")]
    jax.tree.map(np.testing.assert_array_equal, *trees)
    names = set(content)
    # As two ports of the file have them.
    assert {
        "layers.conv_4.weight", "layers.mixed.tower.conv_1.beta", "layers.mixed_2.tower_2.conv.var",
        "layers.mixed_3.conv.mean", "layers.mixed_3.tower.conv_2.weight",
        "layers.mixed_7.tower_1.conv_4.weight", "layers.mixed_8.tower_1.conv_3.weight",
        "layers.mixed_9.tower_mixed_conv_1.weight", "layers.mixed_9.tower_1_conv_1.weight",
        "layers.mixed_10.tower_1_mixed_conv.weight", "layers.mixed_10.tower_2_conv.weight",
    } <= names  # fmt: skip


def torch_entries_by_target():
    return dict(sorted((e.target, e.source) for e in torch_entries()))


def nvidia_by_target():
    return dict(sorted((e.target, e.source) for e in nvidia_entries()))


def test_other_inceptions_are_refused(tmp_path):
    arrays = arrays_of(torch_entries(), 16)
    head = {"AuxLogits.conv0.conv.weight": np.ones((1, 1, 1, 1), np.float32)}
    assert recognise([SourceFile.of("a.pth", arrays)]) == "inception"
    torch.save({k: torch.from_numpy(v) for k, v in (arrays | head).items()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="torchvision's Inception, expected FID's"):
        convert([tmp_path / "a.pth"], tmp_path / "out")


@pytest.mark.parametrize("side", [40, 123])
def test_inputs_are_those_of_each_project(side):
    images = np.random.default_rng(0).integers(0, 256, (2, side, side + 3, 3), dtype=np.uint8)
    floats = images.astype(np.float32) / np.float32(127.5) - 1
    found = {mode: np.asarray(inception_pixels(floats, mode, size=64)) for mode in MODES}
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    want = functional.interpolate(x / 255, (64, 64), mode="bilinear", align_corners=False) * 2 - 1
    np.testing.assert_allclose(found["pytorch-fid"], want.permute(0, 2, 3, 1), atol=2e-6)

    def by_pil(channel):
        resized = Image.fromarray(channel.astype(np.float32)).resize((64, 64), Image.BICUBIC)
        return np.asarray(resized).clip(0, 255)

    clean = [np.stack([by_pil(x[..., i]) for i in range(3)], -1) for x in images]
    np.testing.assert_allclose(found["clean"], (np.stack(clean) - 128) / 128, atol=3e-6)

    # NVIDIA's program: an affine grid whose samples lie at i * H / size, border padding.
    theta = torch.eye(2, 3)
    theta[0, 2] += 1 / x.shape[3] - 1 / 64
    theta[1, 2] += 1 / x.shape[2] - 1 / 64
    grid = functional.affine_grid(theta[None].repeat(2, 1, 1), [2, 3, 64, 64], align_corners=False)
    sampled = functional.grid_sample(
        x, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    np.testing.assert_allclose(
        found["nvidia"], (sampled.permute(0, 2, 3, 1) - 128) / 128, atol=5e-5
    )
    with pytest.raises(ValueError, match="expected one of pytorch-fid, clean, nvidia"):
        inception_pixels(floats, "tf")
