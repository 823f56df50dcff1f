"""Every family with a way back: here -> PyTorch -> here -> PyTorch changes no bit."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.encoders import BackboneEncoder
from interestyle_jax.models.graphonomy import Graphonomy
from interestyle_jax.models.inception import Inception
from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.lpips import LPIPS
from interestyle_jax.models.moco import MocoEmbedder
from interestyle_jax.models.mtcnn import ONet, PNet, RNet
from interestyle_jax.models.progressive import Encoder4Editing, ResNetProgressiveBackboneEncoder
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.models.resnet import ResNetTrunk
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights, save_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.conversion import Family
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.families.graphonomy import unread_shapes
from tools.convert_weights.source_file import BARE, PARALLEL, SourceFile, read_source
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")

GENERATOR = Generator(
    resolution=16, w_dim=6, z_dim=6, mapping_depth=2, channel_base=128, channel_max=10
)
PARSER = Graphonomy((4, 4, 4, 5, 6, 7, 8, 8, 9), 2, features=8, low_level=3, hidden=5)
TINY_TRUNK = {"units": (1, 1), "widths": (16, 16, 32), "dim": 5, "input_size": 16}
TINY_ENCODER = {
    "num_styles": 6,
    "input_size": 16,
    "units": (1, 1, 1),
    "widths": (4, 4, 8, 12),
    "head_width": 5,
    "w_dim": 6,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A tiny set of weights of one family: networks, arrays, metadata's extra.

    Arrays are {part: shape}, or nested dicts of shapes.
    """

    networks: dict[str, Any]
    arrays: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def inverter(encoder, **networks: Any) -> Case:
    return Case({"encoder": encoder, "generator": GENERATOR} | networks, {"w_avg": (6, 6)})


def resnet_shapes(trunk):
    """A `ResNetTrunk` without the PReLU that torchvision's stem lacks."""
    shapes = jax.tree.map(lambda s: s.shape, registry.variable_shapes(registry.describe(trunk)))
    del shapes["params"]["stem_prelu"]
    return shapes


CASES = {
    "psp": inverter(GradualStyleEncoder(**TINY_ENCODER)),
    "e4e": inverter(
        Encoder4Editing(**TINY_ENCODER), latent_discriminator=LatentDiscriminator(6, 3)
    ),
    "restyle_psp": inverter(BackboneEncoder(**TINY_ENCODER)),
    "restyle_e4e": inverter(ResNetProgressiveBackboneEncoder(**TINY_ENCODER)),
    "interestyle": inverter(BackboneEncoder(**TINY_ENCODER)),
    "stylegan2": Case(
        {"generator": GENERATOR, "discriminator": Discriminator(16, 128, 12)}, {"w_avg": (6,)}
    ),
    "stylegan2_ada": Case({"generator": GENERATOR}, {"w_avg": (6,)}),
    "arcface": Case({"embedder": FaceEmbedder(**TINY_TRUNK)}),
    "curricularface": Case(
        {"embedder": FaceEmbedder(**TINY_TRUNK, squeeze_excitation=False, affine_output=False)}
    ),
    "moco": Case({"embedder": MocoEmbedder((1, 1, 1, 1), 4, 32)}, extra={"values": {"epoch": 3}}),
    "mtcnn": Case(
        {"pnet": PNet((2, 3, 4)), "rnet": RNet((2, 3, 4, 5)), "onet": ONet((2, 3, 4, 5, 6))}
    ),
    "inception": Case({"inception": Inception(16)}),
    "interfacegan": Case({}, {"direction": (1, 18, 8)}),
    "lpips_alex": Case({"lpips": LPIPS("alex")}),
    "lpips_vgg": Case({"lpips": LPIPS("vgg")}),
    "graphonomy": Case({"parser": PARSER}, {"unread": unread_shapes(PARSER)}),
    "resnet34": Case({}, {"trunk": resnet_shapes(ResNetTrunk((1, 2), (4, 4, 8)))}),
}


def test_every_family_with_a_way_back_has_a_case():
    found = {n for n, f in FAMILIES.items() if type(f).restore is not Family.restore}
    # In test_convert_clip.py and test_convert_styleclip.py, with the layouts of their files.
    assert found == {*CASES, "clip", "styleclip_mapper"}


def draw(case: Case) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {n: registry.variable_shapes(registry.describe(m)) for n, m in case.networks.items()}
    shapes |= jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, np.float32),
        case.arrays,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def assert_same(a: Any, b: Any, path: str = "content") -> None:
    """Nested content: the same keys, types and values, arrays bit for bit."""
    assert type(a) is type(b), path
    if isinstance(a, Mapping):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert a.tobytes() == b.tobytes(), path
    else:
        assert a == b, path


def wrapped(file: SourceFile) -> SourceFile:
    """The same file as a DataParallel model would have saved it."""

    def wrap(tree):
        if BARE not in tree and all(isinstance(value, np.ndarray) for value in tree.values()):
            return {PARALLEL + key: value for key, value in tree.items()}
        return {k: wrap(v) if isinstance(v, Mapping) and v else v for k, v in tree.items()}

    return SourceFile.of(file.path, wrap(file.content))


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_changes_no_bit(name, tmp_path):
    case, family = CASES[name], FAMILIES[name]
    variables = draw(case)
    save_weights(
        tmp_path / "here",
        variables,
        family=name,
        architectures={n: registry.describe(m) for n, m in case.networks.items()},
        licence="none: random numbers",
        extra=case.extra,
    )
    out = "folder" if family.files else "official.pt"
    files = []
    for i, directory in enumerate(("here", "again")):
        report = to_pytorch(tmp_path / directory, tmp_path / f"{i}" / out)
        assert f"family {name}" in report
        target = tmp_path / f"{i}" / out
        paths = sorted(target.iterdir()) if family.files else [target]
        files.append([read_source(path) for path in paths])
        assert recognise(files[-1]) == name
        assert recognise([wrapped(file) for file in files[-1]]) == name
        if directory == "here":
            convert(paths, tmp_path / "again")
    assert_same(load_weights(tmp_path / "again").variables, variables)
    for first, second in zip(*files, strict=True):
        assert_same(first.content, second.content)
