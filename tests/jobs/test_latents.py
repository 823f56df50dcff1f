"""Latents on disk: appended, joined, split, and read one at a time."""

import zipfile

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.jobs import latents as latent_files
from interestyle_jax.jobs.latents import LatentFile, LatentWriter, rows_of, write_latents

SHAPE = (2, 3, 4)


@pytest.fixture
def written(tmp_path):
    """A folder with 7 rows in a writer's file, and the rows by name."""
    values = np.random.default_rng(0).normal(size=(7, *SHAPE)).astype(np.float32)
    writer = LatentWriter(tmp_path)
    rows = {f"p{i}": writer.add(values[i]) for i in range(7)}
    writer.close()
    assert list(rows.values()) == list(range(7))
    return tmp_path, writer.name, dict(zip(rows, values, strict=True)), rows


def test_small_latents_become_one_file_as_savez_writes_it(written):
    folder, name, values, rows = written
    names = sorted(values, reverse=True)
    mapped = rows_of(folder, name, SHAPE)
    latents = write_latents(folder, names, lambda image: mapped[rows[image]], SHAPE)
    assert [path.name for path in folder.iterdir()] == ["latents.npz"]
    with np.load(folder / "latents.npz", allow_pickle=False) as file:
        assert file["names"].tolist() == names == latents.names
        np.testing.assert_array_equal(file["w_plus"], [values[n] for n in names])
        assert file["w_plus"].dtype == np.float32
    assert latents.shape == (7, *SHAPE) and "p3" in latents and "p9" not in latents
    np.testing.assert_array_equal(latents["p3"], values["p3"])
    own = folder / "own.npz"
    np.savez_compressed(own, names=np.array(["a"]), w_plus=np.ones((1, *SHAPE)))
    np.testing.assert_array_equal(LatentFile(own)["a"], np.ones(SHAPE))


def test_large_latents_become_shards_and_back(written, monkeypatch):
    folder, name, values, rows = written
    mapped = rows_of(folder, name, SHAPE)
    row = 4 * np.prod(SHAPE)
    monkeypatch.setattr(latent_files, "LARGEST_JOINED", 6 * row)
    monkeypatch.setattr(latent_files, "SHARD_BYTES", 3 * row)
    latents = write_latents(folder, list(values), lambda image: mapped[rows[image]], SHAPE)
    shards = [f"latents-{k:05d}-of-00003.npz" for k in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == shards
    assert latents.names == list(values) and latents.shape == (7, *SHAPE)
    for image, value in values.items():
        np.testing.assert_array_equal(latents[image], value)

    again = write_latents(folder, ["p6", "p1"], latents.__getitem__, SHAPE)
    assert again.generator is None
    assert [path.name for path in folder.iterdir()] == ["latents.npz"]
    np.testing.assert_array_equal(again["p6"], values["p6"])


def test_latents_that_are_not_there(written):
    folder, name, _, _ = written
    with pytest.raises(InputError, match=r"holds no latents\.npz"):
        LatentFile(folder)
    (folder / "latents-00000-of-00002.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no latents\.npz"):
        LatentFile(folder)
    (folder / "latents.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="latents cannot be read"):
        LatentFile(folder)
    np.savez(folder / "latents.npz", names=np.array(["a"]))
    with pytest.raises(InputError, match=r"w_plus"):
        LatentFile(folder)
    np.savez(folder / "latents.npz", names=np.array(["a"]), w_plus=np.ones((2, *SHAPE)))
    with pytest.raises(InputError, match=r"names \[1\] and w_plus \[2, 2, 3, 4\]"):
        LatentFile(folder)
    with zipfile.ZipFile(folder / "latents.npz") as archive:
        w_plus = archive.read("w_plus.npy")
    with zipfile.ZipFile(folder / "latents.npz", "w") as archive:
        archive.writestr("names.npy", b"no array")
        archive.writestr("w_plus.npy", w_plus)
    with pytest.raises(InputError, match="names or w_plus is no array"):
        LatentFile(folder)
    with pytest.raises(InputError, match="which holds no latents"):
        rows_of(folder, "../" + name, SHAPE)
    assert rows_of(folder, ".latents-0000000000000000.rows", SHAPE) is None


def test_latents_say_whose_they_are(written):
    folder, name, values, rows = written
    mapped = rows_of(folder, name, SHAPE)
    latents = write_latents(
        folder, list(values), lambda image: mapped[rows[image]], SHAPE, generator="0123"
    )
    assert latents.generator == LatentFile(folder / "latents.npz").generator == "0123"
    with np.load(folder / "latents.npz", allow_pickle=False) as file:
        assert str(file["generator"]) == "0123" and len(file["w_plus"]) == 7
    own = folder / "own.npz"
    np.savez(own, names=np.array(["a"]), w_plus=np.ones((1, *SHAPE)), generator=np.ones(2))
    with pytest.raises(InputError, match="own.npz: generator is float64, expected a text"):
        LatentFile(own)
    for i, generator in enumerate(("0", "1")):
        np.savez(
            folder / f"latents-0000{i}-of-00002.npz",
            names=np.array([f"a{i}"]),
            w_plus=np.ones((1, *SHAPE)),
            generator=np.array(generator),
        )
    (folder / "latents.npz").unlink()
    with pytest.raises(InputError, match="its latents belong to several generators"):
        LatentFile(folder)


@pytest.mark.parametrize("name", ["a.npy", "latents.pt", "projected_w.npz", "single.npy"])
def test_latents_of_others_have_no_names(tmp_path, name):
    """Arrays of e4e and PTI, and stylegan2-ada's projector."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    path = tmp_path / name
    if name == "single.npy":
        values = values[:1]
        np.save(path, values[0])
    elif name.endswith(".npy"):
        np.save(path, values)
    elif name.endswith(".pt"):
        torch.save(torch.from_numpy(values), path)
    else:
        np.savez(path, w=values)
    latents = LatentFile(path)
    assert latents.names == ["0", "1"][: len(values)] and latents.generator is None
    assert latents.shape == (len(values), 1, 3, 4)
    np.testing.assert_array_equal(latents["0"], values[:1])
    np.save(tmp_path / "wrong.npy", np.ones((2, 2, 3, 4)))
    with pytest.raises(InputError, match="wrong.npy: expected one array of floats"):
        LatentFile(tmp_path / "wrong.npy")
