"""Data sets by directory and by name."""

import pytest

from interestyle_jax.data.locate import locate_data_set
from interestyle_jax.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        directory = tmp_path / "tfds" / "faces" / version
        directory.mkdir(parents=True)
        (directory / "dataset_info.json").write_text("{}")
    return tmp_path / "tfds"


def test_directory_is_itself(tmp_path):
    assert locate_data_set(tmp_path) == tmp_path


def test_name_gives_the_newest_version_unless_one_is_named(folder):
    assert locate_data_set("faces") == folder / "faces" / "1.10.0"
    assert locate_data_set("faces:1.9.0") == folder / "faces" / "1.9.0"
    # "²" is a digit for `str.isdigit` and none for `int`.
    (folder / "faces" / "²").mkdir()
    (folder / "faces" / "²" / "dataset_info.json").write_text("{}")
    assert locate_data_set("faces") == folder / "faces" / "1.10.0"


@pytest.mark.parametrize("name", ["cats", "faces:2.0.0", "./nowhere"])
def test_unknown_names_say_where_was_looked(folder, name):
    with pytest.raises(InputError, match=f"{name}: no such data set directory.*{folder}"):
        locate_data_set(name)
