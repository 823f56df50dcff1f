"""Files of embedders, MoCo, MTCNN, directions and ResNet34: recognised, accounted for, and back.

That converted networks compute the official numbers is tested with the networks, in tests/models.
"""

from pathlib import Path

import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.graphonomy import Graphonomy
from interestyle_jax.models.moco import MocoEmbedder
from interestyle_jax.models.resnet import ResNetTrunk
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.conversion import shapes
from tools.convert_weights.families import (
    FAMILIES,
    face_embedders,
    graphonomy,
    moco,
    mtcnn,
    resnet34,
)
from tools.convert_weights.source_file import BARE, SourceFile, read_source
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")

TINY = {"units": (1, 2), "widths": (4, 4, 8), "dim": 3, "input_size": 8}
PLAIN = FaceEmbedder(**TINY, squeeze_excitation=False, affine_output=False)
WIDTHS = {"pnet": (2, 3, 4), "rnet": (2, 3, 4, 5), "onet": (2, 3, 4, 5, 6)}


def expected_shapes(module):
    return shapes(registry.describe(module))


def tiny_arrays(module, entries, seed=0):
    """{official key: array} of a network, and a counter for every BatchNorm."""
    rng = np.random.default_rng(seed)
    expected = expected_shapes(module)
    arrays = {}
    for entry in entries:
        value = rng.normal(size=expected[entry.target]).astype(np.float32)
        arrays[entry.source] = np.array(entry.layout.to_source(value))
    for key in list(arrays):
        if key.endswith("running_mean"):
            counter = key.replace("running_mean", "num_batches_tracked")
            arrays[counter] = np.asarray(rng.integers(1, 10**6))
    return arrays


def face_arrays(module):
    return tiny_arrays(module, face_embedders.entries(module))


def moco_content():
    module = MocoEmbedder((1, 1), 2)
    query = tiny_arrays(module, moco.entries(module))
    section = {f"module.{k.removeprefix(moco.SECTION)}": v for k, v in query.items()}
    left_out = {
        "module.encoder_q.fc.0.weight": np.ones((2, 2), np.float32),
        "module.encoder_k.conv1.weight": np.ones((2, 3, 7, 7), np.float32),
        "module.encoder_k.bn1.num_batches_tracked": np.asarray(3),
        "module.queue": np.ones((2, 4), np.float32),
        "module.queue_ptr": np.zeros(1, np.int64),
    }
    return {"epoch": 800, "arch": "resnet50", "state_dict": section | left_out}, section, left_out


def resnet_arrays():
    module = ResNetTrunk((1, 2), (4, 4, 8))
    return tiny_arrays(module, resnet34.entries(module))


def write(path, content):
    def tensors(value):
        if isinstance(value, dict):
            return {k: tensors(v) for k, v in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    torch.save(tensors(content), path)
    return path


def assert_same(found, want):
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("parallel", [False, True], ids=["plain", "module."])
@pytest.mark.parametrize(
    ("family", "arrays", "left_out"),
    [
        ("arcface", face_arrays(FaceEmbedder(**TINY)), {}),
        ("curricularface", face_arrays(PLAIN), {}),
        ("resnet34", resnet_arrays(), {"fc.weight": np.ones((5, 8)), "fc.bias": np.ones(5)}),
    ],
)
def test_flat_files_there_and_back(tmp_path, family, arrays, left_out, parallel):
    prefix = "module." if parallel else ""
    content = {prefix + k: v for k, v in (arrays | left_out).items()}
    report = convert([write(tmp_path / "in.pth", content)], tmp_path / "here")
    assert f"family {family}\n" in report
    assert ("ignored" in report.splitlines()[-1]) == bool(left_out)
    to_pytorch(tmp_path / "here", tmp_path / "back.pth")
    assert_same(read_source(tmp_path / "back.pth").content, arrays)


@pytest.mark.parametrize("module", [FaceEmbedder(**TINY), PLAIN], ids=["arcface", "curricular"])
def test_embedders_are_evaluated_in_pytorch(tmp_path, module):
    arrays = {
        k: np.abs(v) + np.float32(0.5) if k.endswith("running_var") else v
        for k, v in face_arrays(module).items()
    }
    report = convert([write(tmp_path / "in.pth", arrays)], tmp_path / "here", check=True)
    (line,) = [x for x in report.splitlines() if x.startswith("verify: embedder in PyTorch")]
    assert float(line.split()[-1]) < 1e-5


def test_old_files_without_counters_are_read(tmp_path):
    arrays = face_arrays(PLAIN)
    old = {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(arrays)
    convert([write(tmp_path / "in.pth", old)], tmp_path / "here")
    to_pytorch(tmp_path / "here", tmp_path / "back.pth")
    assert_same(read_source(tmp_path / "back.pth").content, old)


def test_moco_there_and_back_without_what_nothing_reads(tmp_path):
    content, section, left_out = moco_content()
    report = convert([write(tmp_path / "in.pth.tar", content)], tmp_path / "here")
    assert "family moco\n" in report
    for name in ("encoder_q.fc", "encoder_k", "queue"):
        assert f"state_dict/{name}" in report
    to_pytorch(tmp_path / "here", tmp_path / "back.pth.tar")
    back = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert back.keys() == content.keys()
    assert (back["epoch"], back["arch"]) == (800, "resnet50")
    assert_same({k: v.numpy() for k, v in back["state_dict"].items()}, section)
    assert not set(left_out) & set(back["state_dict"])


@pytest.mark.parametrize(
    ("break_it", "messages"),
    [
        (
            lambda a: (a.pop("body.1.res_layer.2.weight"), a.pop("output_layer.4.running_var")),
            [
                "2 keys do not fit",
                "missing key body.1.res_layer.2.weight",
                "missing key output_layer.4.running_var",
            ],
        ),
        (
            lambda a: a.update({"extra": np.zeros(2), "output_layer.4.weight": np.zeros(3)}),
            ["2 keys do not fit", "unused key extra", "unused key output_layer.4.weight"],
        ),
        (
            lambda a: a.update({"output_layer.3.bias": np.zeros(4)}),
            [r"output_layer.3.bias is \[4\], expected \[3\]"],
        ),
        (
            lambda a: a.update({"output_layer.3.weight": np.zeros((3, 31), np.float32)}),
            [r"output_layer.3.weight is \[3, 31\], expected \[3, 32\]"],
        ),
        (lambda a: a.pop("input_layer.0.weight"), ["no face embedder can be read"]),
    ],
    ids=["missing", "unused", "misshaped", "odd map", "no stem"],
)
def test_keys_that_do_not_fit_are_all_listed(tmp_path, break_it, messages):
    arrays = face_arrays(PLAIN)
    break_it(arrays)
    for message in messages:
        with pytest.raises(InputError, match=message):
            convert([write(tmp_path / "in.pth", arrays)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("curricularface", "unused key body.0.res_layer.5.fc1.weight"),
        ("moco", "no MoCo network can be read"),
        ("mtcnn", "another file; expected the files pnet.npy"),
        ("interfacegan", "no single array, expected one direction"),
        ("resnet34", "no ResNet34 can be read"),
    ],
)
def test_a_wrong_family_is_an_error(tmp_path, family, message):
    path = write(tmp_path / "in.pth", face_arrays(FaceEmbedder(**TINY)))
    with pytest.raises(InputError, match=message):
        convert([path], tmp_path / "out", family=family)
    assert not (tmp_path / "out").exists()


def mtcnn_arrays(name):
    return tiny_arrays(mtcnn.NETWORKS[name](WIDTHS[name]), mtcnn.entries(name, WIDTHS[name]))


def test_mtcnn_files_are_told_apart_by_their_keys(tmp_path):
    for i, name in enumerate(WIDTHS):
        np.save(tmp_path / f"{i}.npy", mtcnn_arrays(name), allow_pickle=True)
    convert([tmp_path / f"{i}.npy" for i in (2, 0, 1)], tmp_path / "here")
    to_pytorch(tmp_path / "here", tmp_path / "back")
    assert {p.name for p in (tmp_path / "back").iterdir()} == set(FAMILIES["mtcnn"].files)
    for name in WIDTHS:
        assert_same(read_source(tmp_path / f"back/{name}.npy").content, mtcnn_arrays(name))
    with pytest.raises(InputError, match="pnet, pnet; expected the files pnet.npy, rnet.npy"):
        convert([tmp_path / "0.npy", tmp_path / "0.npy"], tmp_path / "out")
    convert([tmp_path / "1.npy"], tmp_path / "one")
    assert load_weights(tmp_path / "one").variables.keys() == {"rnet"}
    broken = mtcnn_arrays("rnet") | {"more": np.zeros(1)}
    broken.pop("conv5_2.bias")
    np.save(tmp_path / "1.npy", broken, allow_pickle=True)
    with pytest.raises(InputError, match="2 keys do not fit: unused key more; missing key conv5_2"):
        convert([tmp_path / "1.npy"], tmp_path / "out")


def test_real_mtcnn_files_come_back_as_they_are(shared_dir, tmp_path):
    files = [shared_dir / "official" / name for name in FAMILIES["mtcnn"].files]
    report = convert(files, tmp_path / "here")
    lines = {x.split()[0]: x.split()[3] for x in report.splitlines() if x[1:4] == "net"}
    assert lines == {"pnet": "6,632", "rnet": "100,178", "onet": "389,040"}
    to_pytorch(tmp_path / "here", tmp_path / "back")
    for path in files:
        assert_same(read_source(tmp_path / "back" / path.name).content, read_source(path).content)


@pytest.mark.parametrize(
    ("name", "shape"), [("age", (1, 512)), ("smile", (1, 512)), ("pose", (1, 18, 512))]
)
def test_real_directions_come_back_as_they_are(shared_dir, tmp_path, name, shape):
    path = shared_dir / "official" / f"{name}.pt"
    assert "family interfacegan\n" in convert([path], tmp_path / "here")
    want = torch.load(path, map_location="cpu", weights_only=True)
    assert tuple(want.shape) == shape
    here = load_weights(tmp_path / "here")
    np.testing.assert_array_equal(here.variables["direction"], want)
    assert ij.load(tmp_path / "here").metadata["family"] == "interfacegan"
    to_pytorch(tmp_path / "here", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.dtype == want.dtype and torch.equal(back, want)


@pytest.mark.parametrize("value", [np.zeros((2, 512), np.float32), np.zeros((1, 8), np.int64)])
def test_arrays_that_are_no_direction_are_refused(tmp_path, value):
    path = tmp_path / "x.pt"
    torch.save(torch.from_numpy(value), path)
    with pytest.raises(InputError, match="not a known checkpoint"):
        convert([path], tmp_path / "out")
    with pytest.raises(InputError, match=r"expected one direction, \[1, D\] or \[1, L, D\]"):
        convert([path], tmp_path / "out", family="interfacegan")


PARSER = Graphonomy((4, 4, 4, 5, 6, 7, 8, 8, 9), 1, features=8, low_level=3, hidden=5)


def parser_arrays():
    rng = np.random.default_rng(1)
    unread = {
        key: rng.normal(size=shape).astype(np.float32)
        for key, shape in graphonomy.unread_shapes(PARSER).items()
    }
    return tiny_arrays(PARSER, graphonomy.entries(PARSER)) | unread


@pytest.mark.parametrize("counters", [True, False], ids=["counters", "PyTorch 0.4"])
def test_graphonomy_there_and_back_with_what_nothing_reads(tmp_path, counters):
    arrays = {k: v for k, v in parser_arrays().items() if counters or "num_batches" not in k}
    content = {f"module.{k}": np.abs(v) if "running_var" in k else v for k, v in arrays.items()}
    report = convert([write(tmp_path / "in.pth", content)], tmp_path / "here", check=counters)
    assert "family graphonomy\n" in report
    assert "note: source_graph_conv3.weight, transpose_graph.adj" in report
    if counters:
        assert f"verify: {len(arrays)} tensors are the source's, bit for bit" in report
    assert load_weights(tmp_path / "here").part("parser")[0] == PARSER
    assert ij.load(tmp_path / "here").metadata["family"] == "graphonomy"
    to_pytorch(tmp_path / "here", tmp_path / "back.pth")
    want = {k.removeprefix("module."): v for k, v in content.items()}
    assert_same(read_source(tmp_path / "back.pth").content, want)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda a: a.pop("source_graph_conv3.weight"), "missing key source_graph_conv3.weight"),
        (lambda a: a.pop("transpose_graph.adj"), "missing key transpose_graph.adj"),
        (lambda a: a.update({"graph_conv1.weight": np.zeros(2)}), "unused key graph_conv1.weight"),
        (
            lambda a: a.update({"decoder.2.weight": np.zeros(2), "semantic.bias": np.zeros(7)}),
            r"2 keys do not fit: .*decoder.2.weight; semantic.bias is \[7\], expected \[20\]",
        ),
        (
            lambda a: a.update({"semantic.weight": np.zeros((7, 8, 1, 1), np.float32)}),
            r"are \(7, 20, 7\), expected \(20, 20, 7\)",
        ),
        (lambda a: a.pop("target_featuremap_2_graph.weight"), "no Graphonomy parser can be read"),
    ],
    ids=["unread layer", "unread table", "PASCAL's key", "two", "other labels", "no graph"],
)
def test_graphonomy_files_that_do_not_fit(tmp_path, break_it, message):
    arrays = parser_arrays()
    break_it(arrays)
    with pytest.raises(InputError, match=message):
        convert([write(tmp_path / "in.pth", arrays)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def manifest_source(entries, wrap=lambda section: section):
    """A source file with a manifest's keys and shapes; its arrays take no memory."""
    arrays = {k: np.broadcast_to(np.zeros((), d), s) for k, s, d in entries}
    return SourceFile.of(Path("manifest"), wrap(arrays))


@pytest.mark.parametrize("parallel", [False, True], ids=["plain", "module."])
@pytest.mark.parametrize(
    ("manifest", "family", "module", "table"),
    [
        ("arcface_ir_se50", "arcface", FaceEmbedder(), face_embedders),
        (
            "curricularface_ir101",
            "curricularface",
            FaceEmbedder((3, 13, 30, 3), squeeze_excitation=False, affine_output=False),
            face_embedders,
        ),
        ("torchvision_resnet34", "resnet34", ResNetTrunk(), resnet34),
        ("moco_v2_resnet50", "moco", MocoEmbedder(), moco),
    ],
)
def test_manifests_are_recognised_and_mapped(
    golden_manifest, manifest, family, module, table, parallel
):
    """Family and architecture from keys and shapes; every key has its place."""
    entries = golden_manifest(manifest)["state_dict"]
    if parallel:
        entries = [(f"module.{k.removeprefix('module.')}", s, d) for k, s, d in entries]
    elif family == "moco":
        entries = [(k.removeprefix("module."), s, d) for k, s, d in entries]
    wrap = (lambda section: {"state_dict": section}) if family == "moco" else (lambda s: s)
    source = manifest_source(entries, wrap)
    assert recognise([source]) == family
    expected = expected_shapes(module)
    expected.pop(resnet34.PRELU, None)
    arrays = source.arrays()
    reader = FAMILIES[family] if table is face_embedders else table
    assert reader.read_architecture(arrays, "here") == module
    placed = {}
    for entry in table.entries(module):
        here = entry.layout.to_here(arrays[entry.source])
        placed[entry.target] = here.shape
        assert entry.layout.to_source(here).shape == arrays[entry.source].shape
    assert placed == expected
    free = arrays.keys() - {entry.source for entry in table.entries(module)}
    known = ("num_batches_tracked",) if table is face_embedders else ("num_batches_tracked", "fc")
    assert all(any(part in key for part in known) for key in free)


def test_mtcnn_manifest_is_recognised_and_mapped(golden_manifest):
    sections = golden_manifest("mtcnn")
    sources = [manifest_source(entries) for entries in sections.values()]
    assert recognise(sources) == "mtcnn"
    conversion = FAMILIES["mtcnn"].convert(sources)
    assert {n: p.tensors for n, p in conversion.parts.items()} == {
        name: len(entries) for name, entries in sections.items()
    }


def test_direction_in_bfloat16_is_recognised(tmp_path):
    value = torch.arange(8, dtype=torch.bfloat16).view(1, 8)
    torch.save(value, tmp_path / "age.pt")
    convert([tmp_path / "age.pt"], tmp_path / "out")
    found = load_weights(tmp_path / "out").variables["direction"]
    np.testing.assert_array_equal(found, np.arange(8, dtype=np.float32)[None])


def test_direction_is_recognised():
    source = SourceFile.of("x", np.zeros((1, 18, 512), np.float32))
    assert source.content.keys() == {BARE}
    assert recognise([source]) == "interfacegan"
