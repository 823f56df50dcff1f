"""Files of pSp, e4e, ReStyle and IntereStyle: told apart, and every misfit named."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights, resolve_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.source_file import SourceFile, read_source
from tools.convert_weights.tensor_map import misfits
from tools.convert_weights.torch_file import Device

NAMES = (
    "psp",
    "e4e",
    "restyle_psp",
    "restyle_e4e",
    "restyle_psp_resnet",
    "restyle_e4e_resnet",
    "interestyle",
)


@pytest.fixture(scope="module")
def source(official_inverters):
    """Kind's name, changes of the outer keys (None takes one away) -> the source file."""

    def make(name, **changes):
        content = official_inverters.make_checkpoint(official_inverters.kinds[name]) | changes
        return SourceFile.of("x.pt", {k: v for k, v in content.items() if v is not None})

    return make


@pytest.mark.parametrize(
    ("kind", "opts", "family"),
    [
        ("psp", {"output_size": 32}, "psp"),
        ("psp", {"stylegan_size": 32}, "e4e"),
        ("psp", {"encoder_type": "Encoder4Editing", "output_size": 32}, "e4e"),
        ("e4e", {}, "e4e"),
        ("restyle_e4e", {}, "restyle_e4e"),
        ("restyle_psp", {"encoder_type": "BackboneEncoder"}, "restyle_psp"),
        (
            "restyle_psp",
            {"encoder_type": "BackboneEncoder", "apply_mask_loss": False},
            "interestyle",
        ),
        (
            "interestyle",
            {"encoder_type": "BackboneEncoder", "device": Device("cuda:0")},
            "interestyle",
        ),
        ("interestyle", {"encoder_type": "BackboneEncoder", "device": "cuda:0"}, "restyle_psp"),
    ],
)
def test_options_and_discriminator_tell_equal_tensors_apart(kind, opts, family, source):
    assert recognise([source(kind, opts=opts)]) == family


@pytest.mark.parametrize(
    ("kind", "families"), [("psp", "psp, e4e"), ("restyle_psp", "restyle_psp, restyle_e4e")]
)
def test_files_that_nothing_tells_apart_need_a_name(kind, families, source):
    with pytest.raises(InputError, match=rf"several families \({families}\).*--family"):
        recognise([source(kind, opts=None)])
    for family in families.split(", "):
        plan = FAMILIES[family].plan([source(kind, opts=None)])
        assert misfits(plan.arrays, plan.sections) == []


@pytest.mark.parametrize(
    ("family", "kind", "message"),
    [
        ("restyle_e4e", "restyle_psp", "opts say encoder_type 'BackboneEncoder', expected 'Progr"),
        ("psp", "e4e", "opts say encoder_type 'Encoder4Editing', expected 'GradualStyleEncoder'"),
        ("psp", "restyle_psp", "has a backbone encoder of 6 channels, expected .* pyramid of 3"),
        ("restyle_psp", "psp", "has a pyramid encoder of 3 channels, expected .* of 6 channels"),
        ("stylegan2", "psp", "no StyleGAN2 generator"),
    ],
)
def test_wrong_family_is_refused(family, kind, message, source):
    with pytest.raises(InputError, match=message):
        FAMILIES[family].convert([source(kind)])


def test_every_key_that_does_not_fit_is_listed(tmp_path, official_inverters):
    pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    content = official_inverters.make_checkpoint(official_inverters.kinds["restyle_psp"])
    state = content["state_dict"]
    for key in ("encoder.styles.7.convs.0.bias", "decoder.convs.0.noise.weight"):
        del state[key]
    state["encoder.extra.weight"] = np.zeros(2)
    state["other.weight"] = np.zeros(2)
    state["encoder.styles.2.linear.weight"] = np.zeros((6, 6))
    content["latent_avg"] = np.zeros((7, 6))
    content["ema"] = {"x": np.zeros(1)}
    official_inverters.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError) as error:
        convert([tmp_path / "x.pt"], tmp_path / "out")
    for phrase in (
        "7 keys do not fit",
        "missing key state_dict/encoder.styles.7.convs.0.bias",
        "missing key state_dict/decoder.convs.0.noise.weight",
        "unused key state_dict/encoder.extra.weight",
        "unused key state_dict/other.weight",
        "unused key ema/x",
        "state_dict/encoder.styles.2.linear.weight is [6, 6], expected [6, 5]",
        "latent_avg is [7, 6], expected [8, 6]",
    ):
        assert phrase in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_options_that_json_cannot_hold_become_text_and_are_named(source):
    kept = {"encoder_type": "GradualStyleEncoder", "lambdas": (0.1, None), "more": {"a": [True]}}
    opts = kept | {"seen": {1}, "net": np.zeros(2), "start_from_latent_avg": False}
    conversion = FAMILIES["psp"].convert([source("psp", opts=opts)])
    extra = json.loads(json.dumps(conversion.extra))
    assert extra["opts_as_text"] == ["seen", "net"]
    assert extra["opts"] == kept | {
        "lambdas": [0.1, None],
        "seen": "{1}",
        "net": "[0. 0.]",
        "start_from_latent_avg": False,
    }
    assert [note.split(",")[0] for note in conversion.notes] == [
        "opts: seen is kept as text",
        "opts: net is kept as text",
        "opts: start_from_latent_avg is off",
    ]


def test_shipped_encoder_comes_back_as_it_was():
    """Two of its stages are equally wide, so shapes alone would give another network."""
    weights = load_weights(resolve_weights("avatar_interestyle"))
    file = SourceFile.of("x.pt", FAMILIES["interestyle"].restore(weights))
    assert recognise([file]) == "interestyle"
    plan = FAMILIES["interestyle"].plan([file])
    for part in ("encoder", "generator"):
        assert plan.modules[part] == weights.part(part)[0]
    assert misfits(plan.arrays, plan.sections) == []
    opts = file.content["opts"]
    for architecture, message in (
        ({"type": "Generator"}, "is a Generator, expected BackboneEncoder"),
        ({"type": "Backbone"}, "network type is 'Backbone'"),
        ({"type": "BackboneEncoder", "widths": "wide"}, "opts/encoder_architecture: "),
    ):
        opts["encoder_architecture"] = architecture
        with pytest.raises(InputError, match=message):
            FAMILIES["interestyle"].plan([file])


@pytest.mark.parametrize("name", [*NAMES, "restyle_psp_resnet_256", "restyle_e4e_resnet_512"])
def test_manifests_are_recognised_and_mapped(golden_dir, official_inverters, name):
    """Every tensor of the full-size files, by its shape alone."""
    kind = official_inverters.kinds[name.removesuffix("_256").removesuffix("_512")]
    if name not in NAMES:
        kind = dataclasses.replace(kind, manifest=name)
    manifest = json.loads((golden_dir / f"manifests/{kind.manifest}.json").read_text())
    fir = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16

    def zeros(key, shape, dtype):
        return fir if key.endswith(".kernel") else np.broadcast_to(np.zeros((), dtype), shape)

    content = {
        section: {key: zeros(key, shape, dtype) for key, shape, dtype in entries}
        for section, entries in manifest["sections"].items()
    }
    content["latent_avg"] = content["latent_avg"]["latent_avg"]
    file = SourceFile.of("x.pt", content | {"opts": kind.options})
    assert recognise([file]) == kind.family
    plan = FAMILIES[kind.family].plan([file])
    assert misfits(plan.arrays, plan.sections) == []
    encoder, generator = plan.modules["encoder"], plan.modules["generator"]
    assert type(encoder).__name__ == kind.encoder_type
    size = manifest.get("output_size") or manifest["stylegan_size"]
    assert (generator, encoder.num_styles) == (Generator(resolution=size), manifest["n_styles"])
    assert encoder == type(encoder)(
        num_styles=manifest["n_styles"], input_channels=manifest["input_nc"]
    )
    consumed = sum(len(s.entries) for s in plan.sections.values())
    known = sum(len(entries) for entries in manifest["sections"].values())
    left = [k for k in plan.arrays if k.endswith((".kernel", "num_batches_tracked"))]
    assert consumed + len(left) == known


def test_reader_and_family_agree_on_a_device(tmp_path):
    """torch.save keeps a torch.device, which is what marks IntereStyle's files."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    torch.save({"opts": {"device": torch.device("cpu")}, "x": torch.zeros(1)}, tmp_path / "x.pt")
    assert isinstance(read_source(tmp_path / "x.pt").content["opts"]["device"], Device)


# The process says its own peak: what wait4 tells has the parent's memory in it.
CONVERT_AND_MEASURE = """
import re, resource, sys
from pathlib import Path
from tools.convert_weights.__main__ import main
status = main(sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
used = resource.getrusage(resource.RUSAGE_SELF)
print(1024 * int(peak[1]), used.ru_utime + used.ru_stime)
sys.exit(status)
"""


@pytest.mark.slow
def test_full_size_file_is_converted_in_bounded_time_and_memory(golden_manifest, tmp_path):
    """pSp's file at 1024: under 60 s of processor time and 3 times its size, mapped pages too."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    sections = golden_manifest("psp_ffhq")
    fir = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 16
    state = {
        key: fir if key.endswith(".kernel") else torch.ones(shape, dtype=getattr(torch, dtype))
        for key, shape, dtype in sections["state_dict"]
    }
    opts = {"encoder_type": "GradualStyleEncoder"}
    path = tmp_path / "psp.pt"
    torch.save({"state_dict": state, "opts": opts, "latent_avg": torch.ones(512)}, path)
    del state
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CONVERT_AND_MEASURE, path, tmp_path / "out"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    peak, seconds = (float(word) for word in done.stdout.split()[-2:])
    size = path.stat().st_size
    print(f"{size / 1e9:.2f} GB: peak {peak / 1e9:.2f} GB, {seconds:.0f} s of processor time")
    assert peak < 3 * size
    assert seconds < 60
