"""A data set's fingerprint: what changes it, and how much of a large set is read."""

import builtins
import io
import json

import pytest

from interestyle_jax.data import fingerprint as module
from interestyle_jax.data.fingerprint import fingerprint


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    for number in range(3):
        (tmp_path / f"set-train.array_record-{number}").write_bytes(bytes(range(256)) * 4000)
    return tmp_path


@pytest.fixture
def bytes_read(monkeypatch):
    """How much `open` has read in this module since the list was cleared."""
    sizes = []

    class Counted(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            sizes.append(len(data))
            return data

    real = builtins.open
    monkeypatch.setattr(
        module, "open", lambda path, mode: Counted(path) if mode == "rb" else real(path), False
    )
    return sizes


def change(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_small_sets_are_read_whole(directory, bytes_read):
    before = fingerprint(directory)
    assert sum(bytes_read) == 3 * 1024000 + 2
    change(directory / "set-train.array_record-1", 300_000)
    assert fingerprint(directory) != before


def test_large_sets_are_known_by_their_manifest(directory, bytes_read, monkeypatch):
    monkeypatch.setattr(module, "_MANIFEST_BYTES", 2**20)
    (directory / "manifest.json").write_text(json.dumps({"files": {"a": {"sha256": "00"}}}))
    before = fingerprint(directory)
    assert sum(bytes_read) < 3 * 2 * 65536 + 100
    (directory / "manifest.json").write_text(json.dumps({"files": {"a": {"sha256": "01"}}}))
    other = fingerprint(directory)
    assert other != before
    change(directory / "set-train.array_record-2", -5)
    assert fingerprint(directory) not in (before, other)
