"""Reading sources: every format that official files come in, and nothing that runs."""

import argparse
import io
import pickle
import zipfile

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from tools.convert_weights.source_file import BARE, SourceFile, keys, read_source
from tools.convert_weights.torch_file import Device

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")


def save(path, content, **options):
    torch.save(content, path, **options)
    return path


def test_official_files_are_read_as_they_are(shared_dir):
    """Tensors saved on a CUDA device, and a pickled dict in a .npy of 2018."""
    pose = read_source(shared_dir / "official" / "pose.pt")
    assert pose.content[BARE].shape == (1, 18, 512) and np.all(np.isfinite(pose.content[BARE]))
    net = read_source(shared_dir / "official" / "pnet.npy").content
    expected = np.load(shared_dir / "official" / "pnet.npy", allow_pickle=True).item()
    assert net.keys() == expected.keys() and len(net) == 13
    for key, value in expected.items():
        np.testing.assert_array_equal(net[key], value)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_values_survive_with_their_types(tmp_path, new_format):
    content = {
        "state_dict": {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(1).half()},
        "double": torch.tensor([1.5], dtype=torch.float64),
        "args": argparse.Namespace(size=256, path=None, rates=[1, 2.5]),
        "opts": {"device": torch.device("cuda:0"), "also": "cuda:0"},
        "steps": {0: {"exp_avg": torch.zeros(1)}},
    }
    path = tmp_path / "checkpoint.pth.tar"
    save(path, content, _use_new_zipfile_serialization=new_format)
    source = read_source(path)
    assert source.content["args"] == {"size": 256, "path": None, "rates": [1, 2.5]}
    device, text = source.content["opts"]["device"], source.content["opts"]["also"]
    assert device == text == "cuda:0"
    assert isinstance(device, Device) and not isinstance(text, Device)
    arrays = source.arrays()
    assert {k: str(a.dtype) for k, a in arrays.items()} == {
        "state_dict/a": "bfloat16",
        "state_dict/b": "float16",
        "double": "float64",
        "steps/0/exp_avg": "float32",
    }
    np.testing.assert_array_equal(arrays["state_dict/a"].astype(np.float32), [1, 1])


def test_module_prefix_is_taken_off_where_a_whole_section_has_it():
    x = np.zeros(1)
    source = SourceFile.of(
        "x.pt",
        {"state_dict": {"module.a.b": x, "module.c": x}, "mixed": {"module.a": x, "b": x}, "n": 1},
    )
    assert keys([source]) == {"state_dict/a.b", "state_dict/c", "mixed/module.a", "mixed/b"}
    (note,) = source.notes
    assert "state_dict" in note
    assert SourceFile.of("x.pt", {"module.a": x}).content.keys() == {"a"}


@pytest.mark.parametrize("content", [np.arange(6.0).reshape(2, 3), {"a": np.arange(3)}])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_npy_files(tmp_path, content, version):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asanyarray(content), version, allow_pickle=True)
    expected = content if isinstance(content, dict) else {BARE: content}
    found = read_source(tmp_path / "x.npy").content
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


class Payload:
    """Unpickling it in the usual way would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["zip", "legacy", "npy"])
def test_forbidden_global_is_named_and_not_run(tmp_path, form):
    trap, path = tmp_path / "trap", tmp_path / ("x.npy" if form == "npy" else "x.pt")
    if form == "npy":
        np.save(path, np.array({"a": Payload(trap)}, dtype=object), allow_pickle=True)
    else:
        save(path, {"a": Payload(trap)}, _use_new_zipfile_serialization=form == "zip")
    assert not trap.exists()
    with pytest.raises(InputError, match=r"x\.(npy|pt): refused.*_?io\.open") as error:
        read_source(path)
    assert "\n" not in str(error.value)
    assert not trap.exists()
    # The trap works: the usual way of reading springs it.
    pickle.loads(pickle.dumps(Payload(trap))).close()
    assert trap.exists()


def damaged(tmp_path, name):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(4000)}, buffer)
    old = io.BytesIO()
    torch.save({"a": torch.zeros(4000)}, old, _use_new_zipfile_serialization=False)
    flipped = bytearray(buffer.getvalue())
    flipped[len(flipped) // 2] ^= 1
    npy = io.BytesIO()
    np.save(npy, np.zeros(100))
    content = {
        "empty.pt": b"",
        "truncated.pt": buffer.getvalue()[:9000],
        "truncated_legacy.pt": old.getvalue()[:9000],
        "picture.pt": b"\x89PNG\r\n" + bytes(100),
        "picture.bin": b"\x89PNG\r\n" + bytes(100),
        "flipped.pt": bytes(flipped),
        "truncated.npy": npy.getvalue()[:300],
        "header.npy": npy.getvalue()[:40],
    }[name]
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.pt", "is empty"),
        ("truncated.pt", "not a readable PyTorch file"),
        ("flipped.pt", "data/0 does not match its checksum"),
        ("truncated_legacy.pt", "not a readable PyTorch file"),
        ("picture.pt", "PyTorch"),
        ("picture.bin", "not a readable pickle"),
        ("truncated.npy", "not a readable .npy file"),
        ("header.npy", "not a readable .npy file"),
    ],
)
def test_damaged_files_are_one_clear_line(tmp_path, name, message):
    path = damaged(tmp_path, name)
    with pytest.raises(InputError, match=message) as error:
        read_source(path)
    assert str(error.value).count(str(path)) == 1 and "\n" not in str(error.value)


def test_a_directory_is_no_source(tmp_path):
    with pytest.raises(InputError, match="is a directory, expected a checkpoint file"):
        read_source(tmp_path)


def compress(source, target):
    with (
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for entry in archive.infolist():
            compressed.writestr(entry.filename, archive.read(entry))


def test_a_zip_bomb_is_refused_before_it_inflates(tmp_path):
    plain, bomb = save(tmp_path / "plain.pt", {"a": torch.zeros(1_000_000)}), tmp_path / "bomb.pt"
    compress(plain, bomb)
    with pytest.raises(
        InputError, match=r"bomb.pt: the archive of [\d,]+ bytes would inflate to 4,00"
    ):
        read_source(bomb)


def test_an_archive_that_someone_compressed_gives_the_same_numbers(tmp_path):
    a = torch.arange(100_000).float().sin()
    compress(save(tmp_path / "plain.pt", {"a": a}), tmp_path / "small.pt")
    np.testing.assert_array_equal(read_source(tmp_path / "small.pt").content["a"], a)


def test_a_tensor_that_repeats_a_few_numbers_is_refused_before_it_is_laid_out(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.zeros(1).expand(10**6, 10**6)})
    with pytest.raises(InputError, match="up to a the tensors need 4,000,000,000,000 bytes"):
        read_source(path)


def test_content_other_than_tensors_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds a list, expected a dict of tensors or a tensor"):
        read_source(save(tmp_path / "x.pt", [1, 2]))
    sparse = {"a": torch.eye(64).to_sparse()}
    with pytest.raises(InputError, match="a is a tensor of type float32.*expected dense"):
        read_source(save(tmp_path / "y.pt", sparse))


@pytest.mark.parametrize(
    ("name", "message"),
    [("loop", "contain each other"), ("doubled", "over 1,000,000 entries")],
)
@pytest.mark.parametrize("form", ["pt", "pkl"])
def test_entries_that_unfold_without_end_are_refused(tmp_path, form, name, message):
    content = {"a": 1}
    if name == "loop":
        content["a"] = content
    else:
        for _ in range(40):
            content = {"a": content, "b": content}
    path = tmp_path / f"x.{form}"
    if form == "pt":
        save(path, content)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        read_source(path)
