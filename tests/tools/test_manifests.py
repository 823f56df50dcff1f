"""Every golden manifest: recognised, also behind DataParallel, and there and back at full size.

Tensors are one number each, repeated without taking memory; what order their axes come in is the
matter of test_round_trip.py.
"""

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.weights import Weights
from tools.convert_weights import recognise, unsupported
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.source_file import PARALLEL, SourceFile
from tools.convert_weights.torch_file import Device


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a manifest's sections become a family's file or files, and what is left out on purpose.

    `flat` names the sections that are the files themselves; otherwise a section is an entry of the
    one file, beside `values`, and "latent_avg" a bare tensor there. `other` sections are of other
    files.
    """

    family: str
    values: dict = dataclasses.field(default_factory=dict)
    flat: tuple[str, ...] = ()
    left_out: int = 0
    other: tuple[str, ...] = ()


def inverter(family, encoder_type, **opts):
    return Layout(family, {"opts": {"encoder_type": encoder_type, "device": "cuda:0"} | opts})


TRAINED = {"device": Device("cuda:0"), "apply_mask_loss": True}
LAYOUTS = {
    "psp_ffhq": inverter("psp", "GradualStyleEncoder"),
    "e4e_ffhq": inverter("e4e", "Encoder4Editing"),
    "restyle_psp_ffhq": inverter("restyle_psp", "BackboneEncoder"),
    "restyle_psp_resnet_256": inverter("restyle_psp", "ResNetBackboneEncoder"),
    "restyle_psp_resnet_512": inverter("restyle_psp", "ResNetBackboneEncoder"),
    "restyle_e4e_ffhq": inverter("restyle_e4e", "ProgressiveBackboneEncoder"),
    "restyle_e4e_resnet_256": inverter("restyle_e4e", "ResNetProgressiveBackboneEncoder"),
    "restyle_e4e_resnet_512": inverter("restyle_e4e", "ResNetProgressiveBackboneEncoder"),
    "interestyle_ffhq": inverter("interestyle", "BackboneEncoder", **TRAINED),
    "interestyle_256_test": inverter("interestyle", "BackboneEncoder", **TRAINED),
    "rosinality_256": Layout("stylegan2"),
    "rosinality_512": Layout("stylegan2"),
    "rosinality_1024": Layout("stylegan2"),
    "arcface_ir_se50": Layout("arcface", flat=("state_dict",)),
    "curricularface_ir101": Layout("curricularface", flat=("state_dict",)),
    "moco_v2_resnet50": Layout("moco", {"epoch": 800, "arch": "resnet50"}, left_out=4),
    "torchvision_resnet34": Layout("resnet34", flat=("state_dict",), left_out=2),
    # torchvision's classifier.
    "lpips_alex": Layout("lpips_alex", flat=("alexnet", "lin"), left_out=6),
    "mtcnn": Layout("mtcnn", flat=("pnet", "rnet", "onet")),
    "graphonomy_cihp20": Layout("graphonomy", flat=("state_dict",)),
    # The generator beside the mapper, but for its filters' kernels.
    "styleclip_mapper_1024": Layout(
        "styleclip_mapper",
        {"opts": {"stylegan_size": 1024, "device": "cuda:0"}},
        left_out=155,
        other=("mapper_single", "mapper_stylespace"),
    ),
}
# A discriminator without its generator.
UNKNOWN = ("rosinality_disc_32",)


def test_every_manifest_is_here(golden_dir):
    names = {path.stem for path in (golden_dir / "manifests").glob("*.json")}
    assert names == {*LAYOUTS, *UNKNOWN}


def tensor(key, shape, dtype, goldenfill):
    if key.endswith(".kernel"):
        return goldenfill.fill(key, shape, {key})
    value = zlib.crc32(key.encode()) % 1000
    value = np.int64(value) if dtype == "int64" else np.float32(1 + value / 1000)
    return np.broadcast_to(value, shape)


@pytest.fixture(scope="session")
def contents(golden_dir, goldenfill):
    """Manifest's name -> the content of its file or files."""

    def make(name, *, prefix=""):
        sections = json.loads((golden_dir / "manifests" / f"{name}.json").read_text())["sections"]
        tensors = {
            section: {k: tensor(k, s, d, goldenfill) for k, s, d in entries}
            for section, entries in sections.items()
        }
        latent = tensors.pop("latent_avg", {})
        tensors = {s: {prefix + k: x for k, x in part.items()} for s, part in tensors.items()}
        layout = LAYOUTS.get(name, Layout(""))
        for section in layout.other:
            del tensors[section]
        if layout.flat:
            return [tensors[section] for section in layout.flat]
        return [tensors | latent | layout.values]

    return make


def sources(contents):
    return [SourceFile.of(Path(f"file_{i}"), content) for i, content in enumerate(contents)]


@pytest.mark.parametrize("prefix", ["", PARALLEL])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_is_recognised(contents, name, prefix):
    files = sources(contents(name, prefix=prefix))
    unsupported.check(files)
    assert recognise(files) == LAYOUTS[name].family


@pytest.mark.parametrize("name", UNKNOWN)
def test_networks_without_a_family_are_not_taken_for_another(contents, name):
    with pytest.raises(InputError, match="not a known checkpoint"):
        recognise(sources(contents(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_goes_there_and_back(contents, name):
    layout, originals = LAYOUTS[name], contents(name)
    family = FAMILIES[layout.family]
    conversion = family.convert(sources(originals))
    kept = {part: mapped.kept for part, mapped in conversion.parts.items()}
    weights = Weights(
        {part: mapped.variables for part, mapped in conversion.parts.items()},
        {
            "architectures": conversion.architectures,
            "extra": json.loads(json.dumps(conversion.extra | {"kept": kept})),
        },
        Path("here"),
    )
    restored = family.restore(weights)
    restored = list(restored.values()) if family.files else [restored]
    found, expected = {}, {}
    arrays = [SourceFile(Path(), "", content).arrays() for content in originals]
    for i, content in enumerate(restored):
        own = SourceFile(Path(), "", content).arrays()
        # Files of one family may share keys; each is the one that has all of its own.
        original = max(arrays, key=lambda other, own=own: len(other.keys() & own.keys()))
        found |= {(i, k): x for k, x in own.items()}
        expected |= {(i, k): x for k, x in original.items()}
    # Fixed filters are made anew.
    lost = {key for key in expected.keys() - found.keys() if not key[1].endswith(".kernel")}
    assert not found.keys() - expected.keys()
    assert len(lost) == layout.left_out, lost
    ignored = [conversion.ignored, *(part.ignored for part in conversion.parts.values())]
    count = sum(not key.endswith(".kernel") for keys in ignored for key in keys)
    assert count == layout.left_out
    for key, array in found.items():
        assert (array.dtype, array.shape) == (expected[key].dtype, expected[key].shape), key
        assert np.all(array == expected[key]), key
    for key, value in layout.values.items():
        assert restored[0][key] == value
