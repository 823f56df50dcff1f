"""Reading sources: every format that official files come in, and nothing that runs."""

import argparse
import gzip
import io
import pickle
import struct
import sys
import warnings
import zipfile

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from tools.convert_weights.source_file import BARE, SourceFile, keys, read_source
from tools.convert_weights.torch_file import Device

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
safetensors = pytest.importorskip(
    "safetensors.torch", reason="safetensors is not installed (extra [convert])"
)


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


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_of_wrapped_networks_are_taken_off_in_any_order(prefix):
    x = np.ones(1)
    section = {f"encoder.{prefix}a": x, f"encoder.{prefix}b.c": x, "decoder.a": x}
    content = {"state_dict": section, "g_ema": {f"{prefix}a": x, f"{prefix}encoder.{prefix}b": x}}
    source = SourceFile.of("x.pt", content)
    assert keys([source]) == {
        "state_dict/encoder.a", "state_dict/encoder.b.c", "state_dict/decoder.a",
        "g_ema/a", "g_ema/encoder.b",
    }  # fmt: skip
    assert len(source.notes) == 2 * len(prefix.split(".")[:-1])


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
    tensors = safetensors.save({"a": torch.zeros(4000)})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.txt", "text")
    content = {
        "empty.pt": b"",
        "head_legacy.pt": old.getvalue()[:30],
        "truncated.safetensors": tensors[:9000],
        "head.safetensors": tensors[:40],
        "opcode.pt": with_pickle(buffer.getvalue(), b"\x80\x02\x96."),
        # The record that announces a zip64 archive, of two disks.
        "several_disks.pt": buffer.getvalue()[:-42]
        + struct.pack("<4sIQI", b"PK\x06\x07", 1, 0, 2)
        + buffer.getvalue()[-22:],
        "length.pkl": b"\x80\x04\x96" + struct.pack("<Q", 1 << 44) + b"x.",
        "place.pkl": b"\x80\x02}r" + struct.pack("<I", 1 << 31) + b".",
        "page.pt": b"\n <!DOCTYPE html><html>Quota exceeded</html>",
        "pointer.pkl": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "answer.pt": b'{"error": "not found"}',
        "packed.pth.tar": bytes(257) + b"ustar" + bytes(250),
        "packed.pt": gzip.compress(bytes(100)),
        "packed.zip": archive.getvalue(),
        "truncated.pt": buffer.getvalue()[:9000],
        "truncated_legacy.pt": old.getvalue()[:9000],
        "image.pt": b"\x89PNG\r\n" + bytes(100),
        "image.bin": b"\x89PNG\r\n" + bytes(100),
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
        ("truncated.pt", "not a readable PyTorch file: it is cut off, copy or download it again"),
        ("flipped.pt", "data/0 does not match its checksum"),
        ("truncated_legacy.pt", "not a readable PyTorch file: it is cut off"),
        ("head_legacy.pt", "not a readable PyTorch file: it is cut off"),
        ("truncated.safetensors", "is cut off, copy or download it again"),
        ("head.safetensors", "is cut off, copy or download it again"),
        ("opcode.pt", "not a readable PyTorch file: Unsupported operand 150"),
        ("several_disks.pt", "not a readable PyTorch file: zipfiles that span multiple disks"),
        # Without a look ahead these take the memory that they name.
        ("length.pkl", "not a readable pickle of arrays: expected 17592186044416 bytes"),
        ("place.pkl", "not a readable pickle of arrays: object 2,147,483,648 is named at byte 3"),
        ("image.pt", "is a PNG image, expected a checkpoint"),
        ("image.bin", "is a PNG image, expected a checkpoint"),
        ("page.pt", "is a web page, as a failed download leaves it, .*download it again"),
        ("pointer.pkl", "is a git-lfs pointer, .*git lfs pull"),
        ("answer.pt", "is JSON text, .*download it again"),
        ("packed.pth.tar", "is a tar archive, .*unpack it"),
        ("packed.pt", "is a gzip file, .*unpack it"),
        ("packed.zip", r"is a zip archive of other things than a checkpoint \(a.txt\)"),
        ("truncated.npy", "not a readable .npy file"),
        ("header.npy", "not a readable .npy file"),
    ],
)
def test_damaged_files_are_one_clear_line(tmp_path, name, message):
    path = damaged(tmp_path, name)
    with pytest.raises(InputError, match=message) as error:
        read_source(path)
    assert str(error.value).count(str(path)) == 1 and "\n" not in str(error.value)
    # PyTorch advises to switch its safety off.
    assert "weights_only" not in str(error.value)


def with_pickle(archive: bytes, content: bytes) -> bytes:
    """The bytes of a .pt with another pickle."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, content if is_pickle else old.read(entry))
    return changed.getvalue()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_numpys_numbers_and_arrays_in_a_pytorch_file(tmp_path, new_format):
    content = {
        "loss": np.float64(0.25),
        "step": np.int64(7),
        "done": np.bool_(True),
        "name": np.str_("best"),
        "a": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        "opts": {"rates": np.array([1, 2])},
    }
    path = save(tmp_path / "x.pt", content, _use_new_zipfile_serialization=new_format)
    read = read_source(path).content
    # Numbers are plain ones, so that no table has to know them.
    assert {k: read[k] for k in ("loss", "step", "done", "name")} == {
        "loss": 0.25, "step": 7, "done": True, "name": "best",
    }  # fmt: skip
    assert type(read["loss"]) is float and type(read["step"]) is int
    np.testing.assert_array_equal(read["a"], content["a"])
    assert read["a"].dtype == np.float32
    np.testing.assert_array_equal(read["opts"]["rates"], [1, 2])
    save(path, np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(read_source(path).content[BARE], np.ones((1, 4)))


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        # Objects by their bytes would be addresses of the file's choice.
        (b"cnumpy\ndtype\nU\x02O8\x85R", "array of type object, expected numbers"),
        (b"cnumpy\ndtype\nU\x02f8\x85R", "bytes-like"),
        (b"cnumpy\ndtype\nU\x03f99\x85R", "Unsupported|not understood"),
    ],
)
def test_crafted_arrays_are_refused(tmp_path, pickled, message):
    array = b"cnumpy._core.multiarray\n_reconstruct\n)R(K\x01K\x09\x85" + pickled + b"\x89U\x08"
    array += bytes(range(8)) + b"tb"
    plain = save(tmp_path / "x.pt", {"a": torch.zeros(1)})
    plain.write_bytes(with_pickle(plain.read_bytes(), b"\x80\x02}U\x01a" + array + b"s."))
    with pytest.raises(InputError, match=message):
        read_source(plain)


def test_a_bare_name_is_no_array(tmp_path):
    plain = save(tmp_path / "x.pt", {"a": torch.zeros(1)})
    plain.write_bytes(with_pickle(plain.read_bytes(), b"\x80\x02}U\x01acnumpy\ndtype\ns."))
    with pytest.raises(InputError, match="a is a bare name, expected an array"):
        read_source(plain)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "inside"])
def test_a_whole_network_says_what_to_save_instead(tmp_path, form):
    network, path = torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "x.pt"
    if form == "pickle":
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps(network))
    else:
        content = {"g_ema": network} if form == "inside" else network
        save(path, content, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(
        InputError, match=r"holds a whole network .*Sequential.*state_dict\(\)"
    ) as e:
        read_source(path)
    assert "weights_only" not in str(e.value)


def test_safetensors_give_what_the_pytorch_file_gives(tmp_path):
    generator = {"style.1.weight": torch.ones(2, 2), "input.input": torch.zeros(1).bfloat16()}
    flat = {f"g_ema.{k}": v for k, v in generator.items()} | {"latent_avg": torch.ones(3).half()}
    for name in ("x.safetensors", "x.bin"):
        safetensors.save_file(flat, tmp_path / name, metadata={"opts": '{"size": 4}'})
        source = read_source(tmp_path / name)
        assert source.content["opts"] == {"size": 4}
        nested = {"g_ema": generator, "latent_avg": flat["latent_avg"]}
        expected = read_source(save(tmp_path / "x.pt", nested)).arrays()
        assert source.arrays().keys() == expected.keys()
        for key, value in expected.items():
            assert source.arrays()[key].dtype == value.dtype
            np.testing.assert_array_equal(source.arrays()[key], value)
    small = {"x": torch.ones(2).to(torch.float8_e4m3fn)}
    safetensors.save_file(small, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="x is of a type that NumPy lacks"):
        read_source(tmp_path / "x.safetensors")
    safetensors.save_file(flat, tmp_path / "x.safetensors", metadata={"opts": "{"})
    with pytest.raises(InputError, match="metadata opts is no JSON"):
        read_source(tmp_path / "x.safetensors")


def test_safetensors_without_the_package_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "x.safetensors").write_bytes(b"anything")
    with pytest.raises(InputError, match=r"needs safetensors.*\[convert\]"):
        read_source(tmp_path / "x.safetensors")


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


def test_a_foreign_pickle_is_refused_without_warnings(tmp_path):
    """PyTorch warns of another protocol before it refuses."""
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}, protocol=4))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match="a.pt"):
            read_source(path)
    assert not seen


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        (b"(1, 16)", b"(1, 16 "),
        (b"(1, 16)", b"(9**99)"),
        (b"(1, 16)", b"(-1,-1)"),
        (b"(1, 16)", b"(9,999)"),
        (b"'descr'", b"'escr' "),
        (b"{", b"\x00"),
    ],
)
def test_damaged_headers_of_npy_files_are_one_line(tmp_path, found, instead):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((1, 16), np.float32))
    assert read_source(path).content[BARE].shape == (1, 16)
    path.write_bytes(path.read_bytes().replace(found, instead, 1))
    with pytest.raises(InputError, match="a.npy: not a readable .npy file") as caught:
        read_source(path)
    assert "\n" not in str(caught.value)
