"""Damaged JSON is one line, whatever is wrong with it."""

import json
import shutil

import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.json_file import parse_json, read_json
from interestyle_jax.weights import load_weights

DAMAGED = [b"", b"{", b"\xff\xfe\x00", b"\x00", b"[" * 100_000, b'{"a": ' * 100_000]


@pytest.mark.parametrize("content", DAMAGED)
def test_damage_is_named(tmp_path, tiny_weights, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.json: is damaged, no JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError):
        parse_json(content)
    shutil.copytree(tiny_weights / "encoder", tmp_path / "weights")
    (tmp_path / "weights" / "metadata.json").write_bytes(content)
    with pytest.raises(InputError, match="metadata.json: not readable as JSON"):
        load_weights(tmp_path / "weights")


def test_whole_files_are_read(tmp_path):
    content = {"a": [1, None, "\u2460"]}
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == content
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
