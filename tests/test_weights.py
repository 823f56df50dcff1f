"""Weight directories: what goes in comes out, and what is wrong is named in one line."""

import json
import os
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax import weight_files
from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.models import registry
from interestyle_jax.weights import load_weights, resolve_weights, save_weights

GENERATOR = {
    "type": "Generator",
    "resolution": 8,
    "w_dim": 16,
    "z_dim": 16,
    "mapping_depth": 2,
    "channel_base": 64,
    "channel_max": 8,
}


def generator_variables(architecture=GENERATOR, seed=0):
    rng = np.random.default_rng(seed)
    shapes = registry.variable_shapes(architecture)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)


def save(directory, **changes):
    arguments = {
        "variables": {"generator": generator_variables(), "w_avg": np.ones(16, np.float32)},
        "family": "stylegan2",
        "architectures": {"generator": GENERATOR},
        "licence": "made in a test",
    }
    return save_weights(directory, **(arguments | changes))


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "generator")


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_comes_back_bit_for_bit(saved):
    weights = load_weights(saved)
    expected = {"generator": generator_variables(), "w_avg": np.ones(16, np.float32)}
    assert jax.tree.structure(weights.variables) == jax.tree.structure(expected)
    for ours, theirs in zip(
        jax.tree.leaves(weights.variables), jax.tree.leaves(expected), strict=True
    ):
        assert isinstance(ours, np.ndarray) and ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_metadata_says_what_it_is(saved):
    metadata = json.loads((saved / "metadata.json").read_text())
    assert metadata == load_weights(saved).metadata
    assert metadata["family"] == "stylegan2"
    assert metadata["architectures"] == {"generator": GENERATOR}
    assert metadata["licence"] == "made in a test"
    assert metadata["storage_dtype"] == "float32"
    assert metadata["library_versions"].keys() >= {
        "jax", "flax", "orbax-checkpoint", "numpy", "python",
    }  # fmt: skip


def test_a_part_is_a_module_with_its_variables(saved):
    weights = load_weights(saved)
    module, variables = weights.part("generator")
    assert module.apply(variables, np.ones((1, 16), np.float32)).shape == (1, 8, 8, 3)
    with pytest.raises(InputError, match="no encoder in these weights, they hold generator"):
        weights.part("encoder")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_storage(tmp_path, dtype):
    directory = save(tmp_path / "half", dtype=dtype)
    assert load_weights(directory, dtype=None).variables["w_avg"].dtype == jnp.dtype(dtype)
    loaded = load_weights(directory).variables["generator"]["params"]
    exact = generator_variables()["params"]
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(exact), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs.astype(jnp.dtype(dtype)).astype(np.float32))


def test_values_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(InputError, match="w_avg holds values above 65504"):
        save(tmp_path / "x", variables={"w_avg": np.float32([1e5])}, architectures={},
             dtype="float16")  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_statistics_keep_their_type_in_half_precision(tmp_path):
    """Variances of a trained batch norm may be beyond float16."""
    variables = {"encoder": {"batch_stats": {"var": np.float32([1e5])}}, "w_avg": np.ones(2)}
    directory = save(tmp_path / "x", variables=variables, architectures={}, dtype="float16")
    loaded = load_weights(directory, dtype=None)
    assert loaded.metadata["storage_dtype"] == "float16"
    assert loaded.variables["w_avg"].dtype == np.float16
    found = loaded.variables["encoder"]["batch_stats"]["var"]
    assert (found.dtype, found[0]) == (np.float32, 1e5)


def test_arrays_sharded_over_devices_and_integers_keep_their_values(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    array = jax.device_put(jnp.arange(16.0), sharding)
    variables = {"w_avg": array, "steps": jnp.int32(7)}
    weights = load_weights(save(tmp_path / "x", variables=variables, architectures={}))
    np.testing.assert_array_equal(weights.variables["w_avg"], np.arange(16.0))
    assert weights.variables["steps"] == 7 and weights.variables["steps"].dtype == np.int32


def test_loads_where_nothing_can_be_written(copy, monkeypatch):
    """No file is opened for writing and nothing is created while loading."""
    opened = []
    real_open = os.open

    def watching_open(path, flags, *arguments, **options):
        opened.append((str(path), flags))
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", watching_open)
    before = sorted(copy.rglob("*"))
    for path in [copy, *before]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        load_weights(copy)
    finally:
        for path in [copy, *before]:
            path.chmod(0o755)
    assert sorted(copy.rglob("*")) == before
    assert not [x for x in opened if x[1] & (os.O_WRONLY | os.O_RDWR)]


def test_missing_directory_and_missing_metadata(copy):
    with pytest.raises(InputError, match="nowhere: no such weight directory"):
        load_weights("nowhere")
    (copy / "metadata.json").unlink()
    with pytest.raises(InputError, match=r"metadata.json: missing, copy is no weight directory"):
        load_weights(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the metadata of a weight directory"),
        ({"format_version": 2}, "format_version is 2, this version reads 1"),
        ({"architectures": None}, "field architectures is missing or no dict"),
        ({"architectures": {"generator": {"type": "Nerf"}}}, "network type is 'Nerf'"),
        ({"architectures": {"generator": {"type": "Generator", "size": 8}}}, "no field size"),
        ({"architectures": {"generator": {"type": ["Generator"]}}}, "architecture of generator"),
        (
            {"architectures": {"generator": GENERATOR | {"w_dim": "16"}}},
            "architecture of generator",
        ),
        ({"files": {"_METADATA": 3}}, "_METADATA has no bytes"),
    ],
)
def test_foreign_metadata(copy, change, message):
    path = copy / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as error:
        load_weights(copy)
    assert str(copy) in one_line(error)


def test_metadata_that_is_no_json(copy):
    (copy / "metadata.json").write_text('{"format": ')
    with pytest.raises(InputError, match=r"metadata.json: not readable as JSON"):
        load_weights(copy)


def largest_file(directory: Path) -> Path:
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_truncated_damaged_and_missing_files_are_named(copy):
    path = largest_file(copy / "variables")
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(InputError, match="cut off") as error:
        load_weights(copy)
    assert str(path) in one_line(error)
    path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    with pytest.raises(InputError, match="damaged"):
        load_weights(copy)
    path.unlink()
    with pytest.raises(InputError, match="incomplete"):
        load_weights(copy)


def test_arrays_that_orbax_cannot_read_are_bad_input(copy):
    """Damage that the digests do not show: they were made after it."""
    for path in (copy / "variables").rglob("manifest.ocdbt"):
        path.write_bytes(b"no manifest")
    metadata = json.loads((copy / "metadata.json").read_text())
    metadata["files"] = weight_files.digests(copy / "variables")
    (copy / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="the arrays cannot be read") as error:
        load_weights(copy)
    one_line(error)


def test_weights_of_another_architecture_list_every_array(copy):
    path = copy / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["architectures"]["generator"] |= {"mapping_depth": 3, "w_dim": 24}
    path.write_text(json.dumps(metadata))
    with pytest.raises(InputError) as error:
        load_weights(copy)
    message = one_line(error)
    assert "generator/params/mapping/dense_2/kernel is missing, expected [24, 24]" in message
    assert "generator/params/mapping/dense_0/kernel is [16, 16], expected [16, 24]" in message


def test_saving_under_another_architecture_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="do not fit the architecture"):
        save(tmp_path / "x", architectures={"generator": GENERATOR | {"resolution": 16}})
    with pytest.raises(InputError, match="dtype: 'int8', expected one of float32"):
        save(tmp_path / "x", dtype="int8")
    assert not list(tmp_path.iterdir())


def test_existing_directories_are_kept(copy, tmp_path):
    before = (copy / "metadata.json").read_text()
    with pytest.raises(InputError, match="already exists"):
        save(copy)
    assert (copy / "metadata.json").read_text() == before
    save(copy, force=True, licence="another")
    assert load_weights(copy).metadata["licence"] == "another"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.png").write_bytes(b"precious")
    with pytest.raises(InputError, match="no weight directory, will not replace it"):
        save(photos, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "photos"]
    assert (photos / "holiday.png").read_bytes() == b"precious"


def test_a_full_disk_leaves_the_old_weights_and_nothing_else(copy, tmp_path):
    """Writes past 64 KB fail in the kernel, as they would on a full disk."""
    big = {"w_avg": np.random.default_rng(0).standard_normal(200_000).astype(np.float32)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for directory in (copy, tmp_path / "new"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limits[1]))
        try:
            with pytest.raises(MachineError, match="weights could not be written") as error:
                save(directory, variables=big, architectures={}, force=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(directory) in one_line(error)
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]
    load_weights(copy)


@pytest.mark.parametrize("step", ["write_tree", "move_into_place"])
def test_an_error_in_any_step_leaves_nothing(tmp_path, monkeypatch, step):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files, step, full)
    with pytest.raises(MachineError, match="No space left on device"):
        save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_failed_replacement_puts_the_old_weights_back(copy, tmp_path, monkeypatch):
    real_replace = os.replace

    def replace(source, destination):
        if Path(destination) == copy and (Path(source) / "metadata.json").is_file():
            if json.loads((Path(source) / "metadata.json").read_text())["licence"] == "new":
                raise OSError(5, "Input/output error")
        real_replace(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(MachineError, match="Input/output error"):
        save(copy, force=True, licence="new")
    assert load_weights(copy).metadata["licence"] == "made in a test"
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_names_resolve_to_directories_then_to_shipped_weights(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_weights(saved) == saved
    shipped = resolve_weights("lpips_alex")
    assert load_weights(shipped).metadata["storage_dtype"] == "float16"
    shutil.copytree(saved, "lpips_alex")
    assert resolve_weights("lpips_alex") == tmp_path / "lpips_alex"
    with pytest.raises(InputError, match=r"no such weight directory.*lpips_alex"):
        resolve_weights("lpips_alexx")


def test_registry_describes_and_builds():
    module = registry.build(GENERATOR)
    assert registry.build(registry.describe(module)) == module
    assert json.loads(json.dumps(registry.describe(module))) == registry.describe(module)
    encoder = registry.build({"type": "BackboneEncoder", "units": [1, 1], "widths": [4, 4, 8]})
    assert encoder.units == (1, 1)
    with pytest.raises(ValueError, match="expected one of AttributeNetwork, .*LPIPS"):
        registry.build({"type": "Diffusion"})
    with pytest.raises(ValueError, match="LPIPS has no field depth, expected some of network"):
        registry.build({"type": "LPIPS", "depth": 3})
