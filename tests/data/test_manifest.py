"""Checking a data set against its manifest."""

import hashlib
import json

import pytest

from interestyle_jax.cli import main


@pytest.fixture
def out(make_photos):
    folder = make_photos([f"p{index}" for index in range(4)])
    out = folder / "set"
    argv = [f"--images={folder / 'images'}", f"--masks={folder / 'masks'}", f"--out={out}"]
    assert main(["data", *argv, "--size=8", "--workers=0"]) == 0
    return out


def test_manifest_names_every_file(out):
    manifest = json.loads((out / "manifest.json").read_text())
    files = {path.name for path in out.iterdir()} - {"manifest.json"}
    assert manifest["files"].keys() == files
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert entry["bytes"] == (out / name).stat().st_size
    assert sum(entry.get("examples", 0) for entry in manifest["files"].values()) == 4
    sizes = [path.stat().st_size for path in out.parent.glob("*s/p?.*")]
    assert manifest["sources"]["files"] == len(sizes) == 8
    assert manifest["sources"]["bytes"] == sum(sizes)


def test_verify(out, capsys):
    assert main(["data", f"--verify={out}"]) == 0
    assert "all 7 files are as in its manifest" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["changed", "missing", "added"])
def test_verify_names_what_differs(out, what, capsys):
    shard = next(out.glob("*train*"))
    if what == "changed":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        words = f"{shard.name} has changed"
    elif what == "missing":
        shard.unlink()
        words = f"{shard.name} is missing"
    else:
        (out / "more.txt").write_text("x")
        words = "more.txt is not in it"
    assert main(["data", f"--verify={out}"]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_verify_needs_a_manifest(out, capsys):
    (out / "manifest.json").write_text('{"files": 3}')
    assert main(["data", f"--verify={out}"]) == 2
    assert "is not a manifest" in capsys.readouterr().err
    (out / "manifest.json").write_text("{")
    assert main(["data", f"--verify={out}"]) == 2
    assert "manifest.json: is damaged" in capsys.readouterr().err
    (out / "manifest.json").unlink()
    assert main(["data", f"--verify={out}"]) == 2
    assert "has no manifest.json" in capsys.readouterr().err
